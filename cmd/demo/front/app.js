// The guide's page: who am I, a token from the bridge, the orders from PostgREST. Everything that was asked is told below the orders.

const element = id => document.getElementById(id)
const money = new Intl.NumberFormat('en-IE', { style: 'currency', currency: 'EUR' })
const day = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium' })
const time = new Intl.DateTimeFormat('en-GB', { timeStyle: 'short' })

// A Problem is an answer that is not what was asked for. status 0: there was no answer.
class Problem extends Error {
  constructor(path, status, { title, text, code }) {
    super(text)
    Object.assign(this, { title, code, status, loggedOut: status === 401 && path.startsWith('/auth/') })
  }
}

async function start() {
  story.clear()
  try {
    const { token, orders } = await fetchOrders()
    const me = await get('/auth/me', 'And who am I?')
    showOrders(me, orders, claimsOf(token))
    story.tell(token)
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem
    if (problem.loggedOut) {
      await get('/orders', 'The orders, then, without a token?').catch(() => {})
      show('visitor', 'You are not logged in')
    } else {
      showProblem(problem)
    }
    story.tell()
  }
}

// The browser's own cache keeps the token until shortly before it expires. When PostgREST refuses a cached one, because it was revoked or
// the secret has changed, a fresh one may do.
async function fetchOrders() {
  const { token } = await get('/auth/api_token', 'A token for PostgREST, please.')
  try {
    return { token, orders: await ordersWith(token) }
  } catch (problem) {
    if (problem.status !== 401) throw problem
    const { token } = await get('/auth/api_token', 'A fresh one, please.', { cache: 'reload' })
    return { token, orders: await ordersWith(token) }
  }
}

function ordersWith(token) {
  return get('/orders?order=created_at.desc', 'The orders that it lets me see.', { headers: { Authorization: `Bearer ${token}` } })
}

// get returns the JSON of the answer, or throws a Problem.
async function get(path, question, options) {
  let answer
  try {
    answer = await fetch(path, options)
  } catch {
    story.add(path, question, options, 'no answer')
    throw new Problem(path, 0, { title: 'The service does not answer', text: 'Is the demo still running? It may also be your connection.' })
  }
  const body = await answer.json().catch(() => null)
  story.add(path, question, options, answer.status, body)
  if (answer.ok && body !== null) return body
  // The bridge says error, message and code; PostgREST says message, and a code that is for programs.
  throw new Problem(path, answer.status, {
    title: body?.error ?? 'The orders cannot be read',
    text: body?.message ?? `The service answered with status ${answer.status}.`,
    code: body?.code,
  })
}

function show(view, announcement) {
  for (const section of document.querySelectorAll('[data-view]')) section.hidden = section.dataset.view !== view
  for (const part of document.querySelectorAll('[data-for]')) part.hidden = !part.dataset.for.split(' ').includes(view)
  element('announcement').textContent = announcement
}

function showOrders(me, orders, claims) {
  const others = orders.some(order => String(order.user_id) !== me.user_id)
  element('count').textContent = orders.length === 1 ? '1 order' : `${orders.length || 'No'} orders`
  element('whose').textContent = others ? 'Everybody’s, because your role may see them all.' :
    orders.length ? 'Yours alone: the database shows you no others.' : 'There is none that your role may see.'
  element('who').textContent = claims.email ?? `User ${me.user_id}`
  element('role').textContent = me.role
  element('total').textContent = money.format(orders.reduce((sum, order) => sum + order.price, 0))
  element('list').hidden = orders.length === 0
  element('list').classList.toggle('others', others)
  element('rows').replaceChildren(...orders.map(order => row(order, me)))
  show('orders', `${element('count').textContent}. ${element('whose').textContent}`)
}

function row(order, me) {
  const customer = String(order.user_id) === me.user_id ? make('span', { className: 'tag' }, 'you') : `User ${order.user_id}`
  const placed = new Date(order.created_at)
  // The roles are those of a table anyway, until the style sheet makes cards of it on a phone.
  const cell = (label, className, ...content) => {
    const td = make('td', { className, role: 'cell' }, ...content)
    td.dataset.label = label
    return td
  }
  return make('tr', { role: 'row' },
    cell('Item', 'item', order.item),
    cell('Customer', 'customer', customer),
    cell('Placed', 'placed', make('time', { dateTime: placed.toISOString() }, day.format(placed))),
    cell('Status', 'state', make('span', { className: `status ${order.status}` }, order.status)),
    cell('Price', 'number', money.format(order.price)))
}

function showProblem(problem) {
  element('problem-title').textContent = problem.title
  element('problem-text').textContent = problem.message
  const code = element('problem-code')
  code.hidden = !problem.code
  code.querySelector('code').textContent = problem.code ?? ''
  show('problem', `${problem.title}. ${problem.message}`)
}

// make creates an element. Text stays text: no answer can become markup.
function make(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties)
  made.append(...children)
  return made
}

function claimsOf(token) {
  const bytes = Uint8Array.from(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')), c => c.charCodeAt(0))
  return JSON.parse(new TextDecoder().decode(bytes))
}

const clock = seconds => time.format(new Date(seconds * 1000))
const minutes = seconds => Math.max(0, Math.round((seconds * 1000 - Date.now()) / 60000))
const meanings = {
  role: () => 'the role that PostgREST takes on in PostgreSQL',
  user_id: () => 'what current_user_id() returns in SQL: whose orders are yours',
  exp: at => `ends at ${clock(at)}, in ${minutes(at)} min`,
  iat: at => `made at ${clock(at)}`,
  iss: () => 'who made it: the bridge',
  aud: () => 'whom it is for',
  sub: () => 'the same as user_id, for other programs',
  sid: () => 'the login that it belongs to',
  jti: () => 'its own number',
  email: () => 'added by the rules file',
}

// story is what this page asked, and what it was told.
const story = {
  requests: [],
  clear() {
    this.requests = []
  },
  add(path, question, options, status, body) {
    const lines = [`GET ${path}`]
    const authorization = options?.headers?.Authorization
    if (authorization) lines.push(`Authorization: ${shorten(authorization)}`)
    let answer = ''
    if (Array.isArray(body)) answer = `${body.length} rows`
    else if (body) answer = JSON.stringify(body, (key, value) => key === 'token' ? shorten(value) : value, 2)
    this.requests.push(make('li', {},
      make('p', {}, question, ' ', make('span', { className: status < 400 ? 'answer good' : 'answer' }, String(status))),
      make('pre', {}, lines.join('\n'), answer && '\n\n', make('samp', {}, answer))))
  },
  tell(token) {
    element('requests').replaceChildren(...this.requests)
    element('token').hidden = !token
    const claims = token ? Object.entries(claimsOf(token)) : []
    const known = Object.keys(meanings)
    claims.sort(([a], [b]) => known.indexOf(a) - known.indexOf(b))
    element('claims').replaceChildren(...claims.map(([name, value]) => make('div', {},
      make('dt', {}, name),
      make('dd', {}, make('code', {}, JSON.stringify(value)), make('span', {}, meanings[name]?.(value) ?? '')))))
    element('story').hidden = false
  },
}

const shorten = text => text.length > 40 ? `${text.slice(0, 24)}…${text.slice(-6)}` : text

element('again').addEventListener('click', start)
// After a logout, "back" would bring this page as it was, orders and all.
addEventListener('pageshow', event => {
  if (event.persisted) location.reload()
})
start()
