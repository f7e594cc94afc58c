// All that a page needs: a token from the bridge, and with it the orders from PostgREST.
const element = id => document.getElementById(id)

function say(text, ...shown) {
  element('message').textContent = text
  for (const id of shown) element(id).hidden = false
}

async function start() {
  const answer = await fetch('/auth/api_token')
  const { token, error, message } = await answer.json()
  if (answer.status === 401) return say('You are not logged in.', 'visitor')
  if (!answer.ok) return say(`${error}. ${message}`, 'person')
  const response = await fetch('/orders?order=created_at.desc', { headers: { Authorization: `Bearer ${token}` } })
  if (!response.ok) return say('The orders cannot be shown.', 'person')
  const orders = await response.json()
  for (const { item, status, price } of orders) {
    const row = document.querySelector('#orders tbody').insertRow()
    for (const text of [item, status, Number(price).toFixed(2)]) row.insertCell().textContent = text
  }
  say(orders.length ? `${orders.length} that you may see.` : 'There is none that you may see.', 'person', ...orders.length ? ['orders'] : [])
}

start().catch(() => say('The server does not answer.'))
