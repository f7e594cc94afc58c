// oidc-bridge for the scripts of a page. README.md beside it is the manual, bridge.d.ts has the types.

/** Tells 'sessionend', once for each session that this page knew of. */
export const events = new EventTarget()

/** What the bridge says no with. */
export class BridgeError extends Error {
  constructor(status, { error, message, code, reason } = {}) {
    super(message || error || `the bridge answered with status ${status}`)
    Object.assign(this, { name: 'BridgeError', status, title: error, code, reason })
  }
}

const self = import.meta.url // written otherwise, bundlers take it for a file to bundle
const { fetch } = globalThis // a page may put bridgeFetch in its place
let bridge, origins
let person // user_id; null: nobody is logged in; undefined: not known
let held // the token, and when it was asked for
let asking // the promise of the one request that is under way
let leaving, channel

/** Where the bridge is, and on which origins besides its own and the page's the API is. */
export function configure({ bridge: at = new URL('.', self), api = [] } = {}) {
  bridge = new URL(at, here())
  if (!bridge.pathname.endsWith('/')) bridge.pathname += '/'
  origins = new Set([bridge, here(), ...[].concat(api)].map(address => new URL(address, here()).origin))
  origins.delete('null') // all that have no origin of their own share it
  person = held = undefined
  listen()
}

/** A token for the API, from memory where that is good. */
export async function getToken() {
  const age = held && ageOf(held)
  if (!held || age >= 0.9 * held.life) return ask()
  if (age > held.renew) {
    held.renew = age + 0.1 * held.life // not with each call, should the bridge not answer
    ask().catch(() => {})
  }
  return held.token
}

/** Who is logged in, as GET /me says; null when nobody is. */
export async function user() {
  try {
    const me = await get('me')
    meet(me.user_id)
    return me
  } catch (error) {
    if (error.status === 401) return null
    throw error
  }
}

/** Goes to the login, and comes back to this page or returnTo. */
export function login({ provider, returnTo } = {}) {
  location.assign(address(provider ? 'login/' + encodeURIComponent(provider) : 'login', returnTo))
}

/** Ends the session. From another origin than the bridge's its page asks first. */
export function logout({ returnTo } = {}) {
  leaving = true
  const to = address('logout', returnTo)
  if (bridge.origin !== location.origin) return location.assign(to)
  const form = document.createElement('form')
  form.method = 'post'
  form.action = new URL('logout', bridge)
  form.hidden = true
  const field = document.createElement('input')
  field.name = 'return_to'
  field.value = to.searchParams.get('return_to')
  form.append(field)
  document.body.append(form)
  form.submit()
}

/** fetch, with the token where the request goes to the API. Without a session it goes as anybody's. */
export async function bridgeFetch(input, init) {
  const url = new URL(input.url ?? input, globalThis.document?.baseURI ?? here()) // what fetch makes of it, whoever has written a <base>
  const request = input.url ? input : url
  if (!origins.has(url.origin)) return fetch(request, init)
  const send = token => {
    const headers = new Headers(init?.headers ?? input.headers)
    headers.delete('Authorization')
    if (token) headers.set('Authorization', 'Bearer ' + token)
    return fetch(request, { ...init, headers })
  }
  const token = await tokenOrNobody()
  const answer = await send(token)
  if (answer.status !== 401 || !token) return answer
  if (held?.token === token) held = undefined
  if (input.bodyUsed || init?.body?.getReader) return answer // a stream has gone, and cannot go again
  const next = await getToken().catch(() => {})
  if (!next || next === token) return answer
  answer.body?.cancel()
  return send(next)
}

// A session that has ended in the hands of this page does not become anonymous.
async function tokenOrNobody() {
  if (person === null) return
  const known = person
  try {
    return await getToken()
  } catch (error) {
    if (error.status !== 401 || known) throw error
  }
}

function ask() {
  return asking ??= newToken().finally(() => { asking = undefined })
}

async function newToken() {
  const asked = { tick: performance.now(), date: Date.now() }
  const { token, expires_in } = await get('api_token')
  const { sub } = JSON.parse(atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')))
  if (!meet(sub)) throw new BridgeError(401, { error: 'Another person has logged in' })
  const life = 1000 * expires_in || 0
  held = { ...asked, token, life, renew: life * (0.5 + 0.2 * Math.random()) }
  return token
}

// The clock of a page may stand still while the machine sleeps; the other one may be wrong, or be set. Together they are not too slow.
function ageOf({ tick, date }) {
  return Math.max(performance.now() - tick, Date.now() - date)
}

async function get(path) {
  const answer = await fetch(new URL(path, bridge), {
    cache: 'no-store', credentials: 'include', redirect: 'error', signal: AbortSignal.timeout(20000),
  })
  const body = await answer.json().catch(() => undefined)
  if (answer.ok && body) return body
  if (answer.status === 401 && person !== null) become(null)
  if (answer.status === 403) held = undefined
  throw new BridgeError(answer.status, body)
}

// meet reports whether the session is of the person for whom this page has been working.
function meet(id) {
  const same = !person || person === id
  if (person !== id) become(id)
  return same
}

function become(id) {
  const before = person
  person = id
  held = undefined
  tell(id)
  if (before) events.dispatchEvent(new Event('sessionend'))
}

// look asks whether the session is still there. A request that is under way may have been answered before what made us look.
function look() {
  if (person) Promise.resolve(asking).catch(() => {}).then(ask).catch(() => {})
  else person = undefined
}

// Tabs tell each other whom they see. Who sees somebody else believes the bridge alone.
const storageName = () => 'oidc-bridge ' + bridge

function listen() {
  channel?.close()
  channel = undefined
  if (!globalThis.BroadcastChannel) return
  channel = new BroadcastChannel(storageName())
  channel.unref?.() // Node
  channel.onmessage = ({ data }) => data === person || look()
}

function tell(id) {
  try {
    if (channel) channel.postMessage(id)
    else localStorage.setItem(storageName(), Math.random())
  } catch { /* no storage, no other tabs */ }
}

function address(path, returnTo) {
  const back = new URL(returnTo ?? location, here())
  const to = new URL(path, bridge)
  to.searchParams.set('return_to', back.origin === bridge.origin ? back.pathname + back.search + back.hash : back)
  return to
}

function here() {
  return globalThis.location?.href ?? self
}

configure()
globalThis.document?.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') look()
})
globalThis.addEventListener?.('storage', event => {
  if (event.key === storageName()) look()
})
globalThis.addEventListener?.('pagehide', () => {
  if (leaving) tell(null) // the session has ended by now
  channel?.close() // which would keep the page out of the back/forward cache
})
globalThis.addEventListener?.('pageshow', event => {
  if (!event.persisted) return
  leaving = held = undefined
  listen()
  look()
})
