const byId = (id) => document.getElementById(id)
const euros = (amount) => `€ ${amount}`

/** An element with properties and children. */
function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties)
  made.append(...children)
  return made
}

async function call(path, body) {
  const response = await fetch(path, body && { method: 'POST', body: JSON.stringify(body) })
  if (!response.ok) throw new Error((await response.json()).error)
  return response.json()
}

const { products, servedBy } = await call('/api/products')
byId('served').textContent = `served by ${servedBy.host} at ${servedBy.local} to ${servedBy.remote}`

let cart = await call('/api/cart')

async function setQuantity(id, quantity) {
  cart = await call('/api/cart', { id, quantity })
  showCart()
}

const quantityOf = (id) => cart.items.find((item) => item.id === id)?.quantity ?? 0

function showCart() {
  const rows = cart.items.map(({ id, quantity }) =>
    element(
      'li',
      {},
      element('span', { textContent: `${quantity} × ${products.find((product) => product.id === id).name}` }),
      element('button', {
        className: 'quiet',
        textContent: '✕',
        ariaLabel: 'Remove one',
        onclick: () => setQuantity(id, quantity - 1),
      }),
    ),
  )
  byId('cart').replaceChildren(...(rows.length > 0 ? rows : [element('li', { textContent: 'Nothing yet' })]))
  byId('total').textContent = euros(cart.total)
}

byId('products').replaceChildren(
  ...products.map(({ id, name, detail, price, hue }) =>
    element(
      'li',
      {},
      element('span', { className: 'badge', style: `--hue: ${hue}`, textContent: name[0], ariaHidden: 'true' }),
      element('h3', { textContent: name }),
      element('p', { textContent: detail }),
      element(
        'div',
        { className: 'row' },
        element('strong', { textContent: euros(price) }),
        element('button', { textContent: 'Add', onclick: () => setQuantity(id, quantityOf(id) + 1) }),
      ),
    ),
  ),
)
showCart()

const socket = new WebSocket(`ws://${location.host}/echo`)
const log = (text) => byId('echo-log').prepend(element('li', { textContent: text }))
socket.onopen = () => log('connected')
socket.onmessage = ({ data }) => log(`← ${data}`)
socket.onclose = () => log('closed')
byId('echo-form').onsubmit = (event) => {
  event.preventDefault()
  const input = byId('echo-text')
  if (input.value && socket.readyState === WebSocket.OPEN) socket.send(input.value)
  input.value = ''
}

byId('upload').onchange = async ({ target }) => {
  const [file] = target.files
  const response = await fetch('/upload', { method: 'POST', body: file })
  const { bytes, sha256 } = await response.json()
  byId('upload-result').textContent = `${bytes} bytes, SHA-256 ${sha256}`
}
