// What bridge.d.ts says must fit where the README puts it: npx tsc --noEmit.
import { PostgrestClient } from '@supabase/postgrest-js'
import { createClient } from '@supabase/supabase-js'
import { BridgeError, bridgeFetch, configure, events, getToken, login, logout, user } from '../../bridge/client/bridge.js'

configure({ bridge: 'https://login.example.com/auth/', api: ['https://api.example.com', new URL('https://x.example.com')] })
new PostgrestClient('https://api.example.com', { fetch: bridgeFetch })
createClient('https://api.example.com', 'no key', { accessToken: getToken, global: { fetch: bridgeFetch } })
events.addEventListener('sessionend', () => login({ provider: 'corp', returnTo: '/' }))
user().then(me => me === null ? logout() : me.role.toUpperCase()).catch((error: unknown) => error instanceof BridgeError && error.status > 400 && error.code?.trim())
// @ts-expect-error: nobody may be logged in
user().then(me => me.role)
