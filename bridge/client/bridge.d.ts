/** Tells 'sessionend' once for each session that this page knew of: it has ended, here or in another tab, or another person has logged in. */
export const events: EventTarget

/** What the bridge says no with. What cannot be asked at all is the error of fetch. */
export class BridgeError extends Error {
  /** HTTP status: 401 nobody is logged in, 403 the rules refuse, 503 try again. */
  readonly status: number
  /** For people, above the message: "You have no access". */
  readonly title?: string
  /** For people to read out to an operator: "ABCD-EFGH". */
  readonly code?: string
  /** For programs: "access_denied". */
  readonly reason?: string
}

export interface Configuration {
  /** public_url of the bridge. Default: the folder that bridge.js was loaded from, which is right unless a bundler has moved it. */
  bridge?: string | URL
  /** Addresses of the API whose origin is neither the page's nor the bridge's: bridgeFetch gives the token to no others. */
  api?: string | URL | readonly (string | URL)[]
}

/** Replaces the configuration. Call it before the rest, and once. */
export function configure(configuration?: Configuration): void

/**
 * A token for the API: from memory, or with one request, however many callers there are. Rejects with a BridgeError without session (401),
 * when the rules refuse (403), and when another person has logged in since the last token (401, once).
 */
export function getToken(): Promise<string>

export interface User {
  user_id: string
  role: string
  /** The provider's name in config.yaml. */
  provider: string
  /** RFC 3339: absolute end of the session. */
  session_expires_at: string
  /** RFC 3339: its end if nobody uses it until then. */
  session_idle_expires_at: string
  /** RFC 3339: end of a token that is fetched now. */
  token_expires_at: string
}

/** Who is logged in; null when nobody is. */
export function user(): Promise<User | null>

/** Leaves for the login. provider: its name in config.yaml; default: the person chooses. returnTo: default is this page. */
export function login(options?: { provider?: string; returnTo?: string | URL }): void

/** Leaves, and ends the session. A page of another origin than the bridge's leaves for a page that asks first. */
export function logout(options?: { returnTo?: string | URL }): void

/**
 * fetch with the token in Authorization, where the request goes to the page's origin, the bridge's, or one of `api`; to others it goes as it
 * is. After a 401 it asks for a new token and repeats the request, once; but not one whose body was a stream or a Request's. Without session
 * it sends no Authorization; when the session has just ended it rejects with a BridgeError.
 */
export const bridgeFetch: typeof fetch
