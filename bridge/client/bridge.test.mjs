// The module against a bridge and an API over HTTP; Node's fetch is the browser's, but for cookies and CORS: e2e has those, in Chromium.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'

let pages = 0

// open is a page with the module. `bridge` says what /api_token and /me answer, `api` what everything else does; `asked` has each request.
async function open(t, { at = '/auth/', ...options } = {}) {
  const site = { session: 'carl', tokens: 0, expires_in: 900, asked: [], ended: [], api: () => 200, ...options }
  const answer = (request, body) => {
    const path = request.url
    site.asked.push({ path, authorization: request.headers.authorization, method: request.method, body })
    if (path === at + 'api_token' || path === at + 'me') {
      if (site.refuse) return site.refuse
      if (!site.session) return [401, { error: 'only authenticated users can request the API token' }]
      if (path.endsWith('me')) return [200, { user_id: site.session, role: 'customer' }]
      const claims = { sub: site.session, n: site.same ? 0 : ++site.tokens, name: 'Ünï ~~~' }
      return [200, { token: `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.x`, expires_in: site.expires_in }]
    }
    const status = site.api({ authorization: request.headers.authorization, body, path })
    return typeof status === 'number' ? [status, { body }] : status
  }
  const server = createServer((request, response) => {
    const chunks = []
    request.on('data', chunk => chunks.push(chunk)).on('end', () => {
      const [status, body, headers] = answer(request, Buffer.concat(chunks).toString())
      response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(typeof body === 'string' ? body : JSON.stringify(body))
    })
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  t.after(() => server.closeAllConnections())
  site.origin = `http://127.0.0.1:${server.address().port}`
  site.count = end => site.asked.filter(({ path }) => path.endsWith(end)).length
  site.of = path => site.asked.filter(asked => asked.path === path)

  const went = []
  const window = new EventTarget()
  site.window = window
  site.document = Object.assign(new EventTarget(), { baseURI: options.base ?? site.origin + '/shop/page.html', visibilityState: 'visible' })
  site.storage = {}
  Object.assign(globalThis, {
    document: site.document, addEventListener: window.addEventListener.bind(window),
    location: { href: site.origin + '/shop/page.html?a=b#c', origin: site.origin, toString() { return this.href }, assign: to => went.push(String(to)) },
    localStorage: { setItem: (key, value) => { site.storage[key] = value } },
  })
  site.went = went
  site.load = async () => {
    const module = await import(`./bridge.js?${++pages}`)
    module.configure({ bridge: options.bridge ?? at, api: options.allowed })
    const tab = site.ended.push(0) - 1
    module.events.addEventListener('sessionend', () => site.ended[tab]++)
    return module
  }
  return [await site.load(), site]
}

// clock is in the test's hands: go moves both, tick and date each alone. Seconds.
function clock(t) {
  let tick = 0, date = 0
  t.mock.method(performance, 'now', () => 1000 * tick)
  t.mock.method(Date, 'now', () => 1.7e12 + 1000 * date)
  return { go(s) { tick += s; date += s }, tick(s) { tick += s }, date(s) { date += s } }
}

const bearer = token => 'Bearer ' + token
const until = async (what, done) => {
  for (let i = 0; !await done(); i++) {
    assert.ok(i < 2000, what)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

test('it is small, and needs nothing', () => {
  const text = readFileSync(new URL('bridge.js', import.meta.url))
  const size = gzipSync(text, { level: 9 }).length
  assert.ok(size < 3000, `${size} bytes`)
  assert.doesNotMatch(text.toString(), /^import |import\(|require\(|\beval\b|innerHTML/m)
})

test('any number of callers are one request, and memory answers after it', async t => {
  const [{ getToken }, site] = await open(t)
  const tokens = await Promise.all(Array.from({ length: 50 }, getToken))
  assert.equal(new Set([...tokens, await getToken()]).size, 1)
  assert.equal(site.count('/api_token'), 1)
})

for (const [random, early, late] of [[0, 449, 451], [0.999, 629, 631]]) {
  test(`a token is renewed behind its users, at ${early} s of 900`, async t => {
    const time = clock(t)
    t.mock.method(Math, 'random', () => random)
    const [{ getToken }, site] = await open(t)
    const first = await getToken()
    time.go(early)
    assert.equal(await getToken(), first)
    assert.equal(site.count('/api_token'), 1)
    time.go(late - early)
    assert.equal(await getToken(), first)
    await until('no renewal', () => site.count('/api_token') === 2)
    let next
    for (let i = 0; i < 2000 && (next = await getToken()) === first; i++) await new Promise(resolve => setTimeout(resolve, 5))
    assert.notEqual(next, first)
    assert.equal(site.count('/api_token'), 2)
  })
}

test('a token that is nearly over is not used', async t => {
  const time = clock(t)
  const [{ getToken }] = await open(t)
  const first = await getToken()
  time.go(811)
  assert.notEqual(await getToken(), first)
})

test('a clock that is wrong, or is set, does not matter', async t => {
  const time = clock(t)
  const [{ getToken }, site] = await open(t)
  time.date(-86400)
  const first = await getToken()
  time.date(-86400)
  assert.equal(await getToken(), first)
  time.tick(811)
  assert.notEqual(await getToken(), first)
  time.date(1e6)
  for (let i = 0; i < 20; i++) await getToken()
  assert.equal(site.count('/api_token'), 3)
})

test('after a sleep during which the page\'s clock stood still', async t => {
  const time = clock(t)
  const [{ getToken }] = await open(t)
  const first = await getToken()
  time.date(1000)
  assert.notEqual(await getToken(), first)
})

test('an answer without expires_in is used once', async t => {
  const [{ getToken }, site] = await open(t, { expires_in: undefined })
  await getToken()
  await getToken()
  assert.equal(site.count('/api_token'), 2)
})

test('while the bridge does not answer, a good token is used, and it is not asked with each call', async t => {
  const time = clock(t)
  const [{ getToken, BridgeError }, site] = await open(t)
  const first = await getToken()
  site.refuse = [503, { error: 'The service is not available', message: 'Please try again in a minute.', reason: 'unavailable' }]
  time.go(700)
  for (let i = 0; i < 20; i++) {
    assert.equal(await getToken(), first)
    await new Promise(resolve => setTimeout(resolve, 1))
  }
  assert.equal(site.count('/api_token'), 2)
  time.go(120)
  await assert.rejects(getToken(), error => error instanceof BridgeError && error instanceof Error && error.status === 503 &&
    error.message === 'Please try again in a minute.' && error.title === 'The service is not available' && error.reason === 'unavailable')
})

test('what the rules refuse is an error, and the token before it is gone', async t => {
  const time = clock(t)
  const [{ getToken, bridgeFetch }, site] = await open(t)
  await getToken()
  site.refuse = [403, { error: 'You have no access', message: 'Your account is closed.', code: 'ABCD-EFGH', reason: 'access_denied' }]
  time.go(700)
  await getToken()
  await until('the token is still there', async () => !await getToken().catch(() => ''))
  const refused = error => error.status === 403 && error.code === 'ABCD-EFGH' && error.message === 'Your account is closed.'
  await assert.rejects(getToken(), refused)
  await assert.rejects(bridgeFetch('/orders'), refused)
  assert.equal(site.count('/orders') + site.ended[0], 0)
})

test('a page where the bridge should be is an error', async t => {
  for (const refuse of [[200, '<!doctype html>'], [200, '{}'], [200, '{"token":7}'], [302, '', { Location: '/shop/' }]]) {
    const [{ getToken, bridgeFetch }, site] = await open(t, { refuse })
    await assert.rejects(getToken())
    await assert.rejects(bridgeFetch('/orders'))
    assert.equal(site.count('/orders') + site.count('/shop/'), 0)
  }
})

test('user', async t => {
  const [{ user }, site] = await open(t)
  assert.equal((await user()).user_id, 'carl')
  site.refuse = [503, {}]
  await assert.rejects(user(), { status: 503 })
  assert.equal(site.ended[0], 0)
  site.refuse = site.session = undefined
  assert.equal(await user(), null)
  assert.equal(await user(), null)
  assert.equal(site.ended[0], 1)
})

test('the token goes to the API alone', async t => {
  const [, elsewhere] = await open(t)
  const [{ bridgeFetch, getToken }, site] = await open(t)
  const token = await getToken()
  for (const input of ['/orders', 'orders', `${site.origin}/orders`, new URL('/orders', site.origin), new Request(`${site.origin}/orders`)]) {
    await bridgeFetch(input, { method: 'PATCH', headers: { Prefer: 'return=minimal' } })
    assert.equal(site.asked.at(-1).authorization, bearer(token))
    assert.equal(site.asked.at(-1).method, 'PATCH')
  }
  await bridgeFetch(new Request(`${site.origin}/orders`, { headers: { Authorization: 'Bearer other' } }))
  assert.equal(site.asked.at(-1).authorization, bearer(token))
  const foreign = elsewhere.origin
  for (const input of [foreign + '/orders', '//' + new URL(foreign).host + '/x', new URL(foreign), new Request(foreign), `\\\\${new URL(foreign).host}/y`,
    foreign.replace('//', `//${new URL(site.origin).host}@`)]) {
    await bridgeFetch(input).catch(error => assert.match(String(error.cause ?? error), /credentials/))
    assert.ok(elsewhere.asked.every(({ authorization }) => !authorization), String(input))
  }
  await bridgeFetch(foreign, { headers: { Authorization: 'Basic eDp5' } })
  assert.equal(elsewhere.asked.at(-1).authorization, 'Basic eDp5')
  assert.ok(elsewhere.asked.length >= 5)
})

test('addresses without an origin are not all one', async t => {
  const [{ bridgeFetch }, site] = await open(t, { allowed: ['data:,'] })
  await bridgeFetch('data:text/plain,x')
  assert.equal(site.asked.length, 0)
})

test('a page may put bridgeFetch in the place of fetch', async t => {
  const { fetch } = globalThis
  t.after(() => { globalThis.fetch = fetch })
  const [{ bridgeFetch }, site] = await open(t)
  globalThis.fetch = bridgeFetch
  await globalThis.fetch('/orders')
  assert.match(site.of('/orders')[0].authorization, /^Bearer/)
})

test('a <base> that somebody has smuggled in gets no token', async t => {
  const [, elsewhere] = await open(t)
  const [{ bridgeFetch }, site] = await open(t, { base: elsewhere.origin + '/' })
  await bridgeFetch('orders', {})
  assert.equal(elsewhere.of('/orders')[0].authorization, undefined)
  assert.equal(site.asked.length + elsewhere.count('/api_token'), 0)
})

test('an API of another origin is named', async t => {
  const [, api] = await open(t)
  const [{ bridgeFetch, configure }, site] = await open(t, { allowed: api.origin + '/rest/v1' })
  await bridgeFetch(api.origin + '/orders')
  assert.match(api.of('/orders')[0].authorization, /^Bearer e30/)
  assert.throws(() => configure({ api: 'http://' }))
  configure({ bridge: site.origin + '/auth' })
  await bridgeFetch(api.origin + '/orders')
  assert.equal(api.asked.at(-1).authorization, undefined)
  await bridgeFetch('/orders')
  assert.equal(site.asked.at(-2).path, '/auth/api_token')
})

test('refused once by the API, a request goes again with a new token, its body too', async t => {
  const [{ bridgeFetch, getToken }, site] = await open(t)
  const old = await getToken()
  site.api = ({ authorization }) => authorization === bearer(old) ? 401 : 201
  const answers = await Promise.all(Array.from({ length: 10 }, (_, i) => bridgeFetch('/orders', { method: 'POST', body: `${i}` })))
  assert.deepEqual(answers.map(({ status }) => status), Array(10).fill(201))
  assert.deepEqual(await Promise.all(answers.map(async answer => (await answer.json()).body)), Array.from({ length: 10 }, (_, i) => `${i}`))
  assert.equal(site.count('/api_token'), 2)
  assert.equal(site.count('/orders'), 20)
})

test('refused twice, the answer is the API\'s', async t => {
  const [{ bridgeFetch }, site] = await open(t, { api: () => 401 })
  assert.equal((await bridgeFetch('/orders')).status, 401)
  assert.equal(site.count('/orders'), 2)
  assert.equal(site.count('/api_token'), 2)
  site.same = true
  await bridgeFetch('/orders')
  const before = site.count('/orders')
  const answer = await bridgeFetch('/orders')
  assert.equal(site.count('/orders') - before, 1, 'the same token again helps nobody')
  assert.deepEqual(await answer.json(), { body: '' })
})

test('a stream is not sent twice; the next request has a new token', async t => {
  const stream = () => new ReadableStream({ start(c) { c.enqueue(new TextEncoder().encode('x')); c.close() } })
  for (const request of [
    origin => [origin + '/orders', { method: 'POST', body: stream(), duplex: 'half' }],
    origin => [new Request(origin + '/orders', { method: 'POST', body: 'x' })],
  ]) {
    const [{ bridgeFetch, getToken }, site] = await open(t)
    const old = await getToken()
    site.api = ({ authorization }) => authorization === bearer(old) ? 401 : 200
    assert.equal((await bridgeFetch(...request(site.origin))).status, 401)
    assert.deepEqual(site.of('/orders').map(({ body }) => body), ['x'])
    assert.equal((await bridgeFetch('/orders')).status, 200)
  }
})

test('without session, requests go as anybody\'s, whatever a library has put in', async t => {
  const [{ bridgeFetch, getToken }, site] = await open(t, { session: undefined })
  for (let i = 0; i < 3; i++) assert.equal((await bridgeFetch('/orders', { headers: { Authorization: 'Bearer key' } })).status, 200)
  assert.equal(site.count('/api_token'), 1)
  assert.ok(site.of('/orders').every(({ authorization }) => authorization === undefined))
  await assert.rejects(getToken(), { status: 401, message: 'only authenticated users can request the API token' })
  assert.equal(site.ended[0], 0)
  site.session = 'carl'
  site.document.dispatchEvent(new Event('visibilitychange'))
  await bridgeFetch('/orders')
  assert.match(site.asked.at(-1).authorization, /^Bearer/)
})

test('a session that ends does not become anonymous by itself', async t => {
  const time = clock(t)
  const [{ bridgeFetch }, site] = await open(t)
  await bridgeFetch('/orders')
  site.session = undefined
  time.go(820)
  await assert.rejects(bridgeFetch('/orders', { method: 'DELETE' }), { status: 401 })
  assert.equal(site.count('/orders'), 1)
  assert.equal(site.ended[0], 1)
  assert.equal((await bridgeFetch('/orders')).status, 200)
  assert.equal(site.asked.at(-1).authorization, undefined)
  assert.equal(site.ended[0], 1)
})

test('a session that the API finds ended', async t => {
  const [{ bridgeFetch, getToken }, site] = await open(t, { api: ({ authorization }) => authorization ? 401 : 200 })
  await getToken()
  site.session = undefined
  assert.equal((await bridgeFetch('/orders')).status, 401)
  assert.equal(site.ended[0], 1)
  assert.equal(site.count('/orders'), 1)
})

test('another person\'s token is not handed to a page of the first', async t => {
  const [{ bridgeFetch, getToken, user }, site] = await open(t)
  const old = await getToken()
  site.session = 'cora'
  site.api = ({ authorization }) => authorization === bearer(old) ? 401 : 200
  assert.equal((await bridgeFetch('/orders', { method: 'DELETE' })).status, 401)
  assert.equal(site.count('/orders'), 1)
  assert.equal(site.ended[0], 1)
  assert.equal((await user()).user_id, 'cora')
  await getToken()
  assert.equal(site.ended[0], 1)
})

test('tabs hear of each other', async t => {
  const [here, site] = await open(t)
  const there = await site.load()
  await here.getToken()
  await there.getToken()
  site.session = undefined
  assert.equal(await here.user(), null)
  await until('the other tab has heard nothing', () => site.ended[1] === 1)
  assert.equal(site.count('/api_token'), 3)
  site.session = 'carl'
  await here.user()
  await until('the other tab is still anonymous', async () => {
    await there.bridgeFetch('/orders')
    return site.asked.at(-1).authorization
  })
  assert.deepEqual(site.ended, [1, 1])
})

test('a message alone ends nothing', async t => {
  const [{ getToken }, site] = await open(t)
  await getToken()
  site.window.dispatchEvent(new Event('pagehide'))
  site.window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true })) // and listens still
  await until('nobody looked', () => site.count('/api_token') === 2)
  const liar = new BroadcastChannel(`oidc-bridge ${site.origin}/auth/`)
  liar.postMessage(null)
  await until('nobody looked', () => site.count('/api_token') === 3)
  liar.close()
  assert.equal(site.ended[0], 0)
})

test('without BroadcastChannel, storage tells', async t => {
  const { BroadcastChannel } = globalThis
  globalThis.BroadcastChannel = undefined
  t.after(() => { globalThis.BroadcastChannel = BroadcastChannel })
  const [{ getToken }, site] = await open(t)
  await getToken()
  const key = `oidc-bridge ${site.origin}/auth/`
  assert.deepEqual(Object.keys(site.storage), [key])
  site.session = undefined
  site.window.dispatchEvent(Object.assign(new Event('storage'), { key: 'other' }))
  site.window.dispatchEvent(Object.assign(new Event('storage'), { key }))
  await until('nobody looked', () => site.ended[0] === 1)
  globalThis.localStorage = { setItem() { throw new Error('SecurityError') } }
  site.session = 'carl'
  await getToken()
})

test('a page that comes back from the back/forward cache does not use what it had', async t => {
  const [{ getToken }, site] = await open(t)
  const first = await getToken()
  site.window.dispatchEvent(new Event('pagehide'))
  site.window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: false }))
  assert.equal(await getToken(), first)
  site.window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }))
  assert.notEqual(await getToken(), first)
  site.session = undefined
  site.window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }))
  await until('no event', () => site.ended[0] === 1)
})

test('a page that is looked at again asks', async t => {
  const [{ getToken }, site] = await open(t)
  site.document.dispatchEvent(new Event('visibilitychange'))
  await getToken()
  assert.equal(site.count('/api_token'), 1)
  site.session = undefined
  site.document.visibilityState = 'hidden'
  site.document.dispatchEvent(new Event('visibilitychange'))
  site.document.visibilityState = 'visible'
  site.document.dispatchEvent(new Event('visibilitychange'))
  await until('no event', () => site.ended[0] === 1)
  assert.equal(site.count('/api_token'), 2)
})

test('login and logout leave with the way back', async t => {
  const [{ login }, site] = await open(t)
  login()
  login({ provider: 'corp/x', returnTo: '/orders.html?x=1#y' })
  login({ returnTo: 'https://evil.example/' }) // the bridge decides
  const far = await open(t, { bridge: 'https://login.example.com/auth' })
  far[0].login({ returnTo: 'done.html' })
  far[0].logout()
  const query = back => '?return_to=' + new URLSearchParams([['', back]]).toString().slice(1)
  assert.deepEqual(site.went, [
    `${site.origin}/auth/login${query('/shop/page.html?a=b#c')}`, `${site.origin}/auth/login/corp%2Fx${query('/orders.html?x=1#y')}`,
    `${site.origin}/auth/login${query('https://evil.example/')}`])
  assert.deepEqual(far[1].went, [`https://login.example.com/auth/login${query(far[1].origin + '/shop/done.html')}`,
    `https://login.example.com/auth/logout${query(far[1].origin + '/shop/page.html?a=b#c')}`])
})

test('it can be loaded where there is no page', () => {
  const url = new URL('bridge.js', import.meta.url)
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', `import ${JSON.stringify(url)}`], { timeout: 60000 })
  assert.equal(status, 0, String(stderr))
})
