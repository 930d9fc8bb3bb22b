// HyperDHT on loopback, told what to do by lines of JSON on stdin, answering with lines of JSON on stdout.
// Started by the interop tests with NODE_PATH set to the reference's modules.

const DHT = require('hyperdht')
const createTestnet = require('hyperdht/testnet')
const readline = require('readline')
const b4a = require('b4a')

const hex = (b) => b4a.toString(b, 'hex')
const say = (m) => process.stdout.write(JSON.stringify(m) + '\n')
const nodes = new Map()
let testnet = null

function watch(name, socket, from) {
  if (from === 'client') socket.on('open', () => say({ event: 'open', name, hash: hex(socket.handshakeHash), remote: hex(socket.remotePublicKey) }))
  socket.on('data', (data) => {
    say({ event: 'data', name, text: data.toString() })
    if (from === 'server') socket.write('echo ' + data)
  })
  socket.on('error', (err) => say({ event: 'error', name, code: err.code, message: err.message }))
}

const commands = {
  async testnet({ size, bootstrap }) {
    const opts = bootstrap ? { bootstrap: [{ host: '127.0.0.1', port: bootstrap }] } : {}
    testnet = await createTestnet(size, opts)
    return { port: testnet.bootstrap[0].port, persistent: testnet.nodes.map((n) => !n.ephemeral) }
  },
  async node({ name, bootstrap, persistent, host = '127.0.0.1' }) {
    const opts = { bootstrap: [{ host: '127.0.0.1', port: bootstrap }], host }
    if (persistent) Object.assign(opts, { ephemeral: false, firewalled: false })
    const node = new DHT(opts)
    nodes.set(name, node)
    await node.fullyBootstrapped()
    return { ephemeral: node.ephemeral, nodes: node.nodes.length, host: node.host, port: node.port }
  },
  async listen({ name }) {
    const server = nodes.get(name).createServer((socket) => {
      say({ event: 'connection', name, hash: hex(socket.handshakeHash), remote: hex(socket.remotePublicKey) })
      watch(name, socket, 'server')
    })
    await server.listen()
    nodes.get(name).server = server
    return { key: hex(server.publicKey), relays: server.relayAddresses.length }
  },
  async unlisten({ name }) {
    await nodes.get(name).server.close()
    return {}
  },
  async connect({ name, key, text }) {
    const socket = nodes.get(name).connect(b4a.from(key, 'hex'))
    watch(name, socket, 'client')
    if (text) socket.on('open', () => socket.write(text))
    return {}
  },
  async announce({ name, topic }) {
    const node = nodes.get(name)
    const relays = node.server ? node.server.relayAddresses : []
    await node.announce(b4a.from(topic, 'hex'), node.defaultKeyPair, relays).finished()
    return { key: hex(node.defaultKeyPair.publicKey) }
  },
  async unannounce({ name, topic }) {
    const node = nodes.get(name)
    await node.unannounce(b4a.from(topic, 'hex'), node.defaultKeyPair)
    return {}
  },
  async lookup({ name, topic }) {
    const peers = {}
    for await (const { peers: found } of nodes.get(name).lookup(b4a.from(topic, 'hex'))) {
      for (const p of found) peers[hex(p.publicKey)] = p.relayAddresses.length
    }
    return { peers }
  },
  async findPeer({ name, key }) {
    let found = 0
    for await (const { peer } of nodes.get(name).findPeer(b4a.from(key, 'hex'))) {
      if (hex(peer.publicKey) === key) found++
    }
    return { found }
  },
  async immutablePut({ name, text }) {
    const { hash } = await nodes.get(name).immutablePut(b4a.from(text))
    return { hash: hex(hash) }
  },
  async immutableGet({ name, hash }) {
    const r = await nodes.get(name).immutableGet(b4a.from(hash, 'hex'))
    return { text: r && r.value.toString() }
  },
  async mutablePut({ name, text, seq }) {
    const node = nodes.get(name)
    const { publicKey } = await node.mutablePut(node.defaultKeyPair, b4a.from(text), { seq })
    return { key: hex(publicKey) }
  },
  async mutableGet({ name, key }) {
    const r = await nodes.get(name).mutableGet(b4a.from(key, 'hex'))
    return { text: r && r.value.toString(), seq: r && r.seq }
  }
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, cmd, ...args } = JSON.parse(line)
  try {
    say({ id, ...(await commands[cmd](args)) })
  } catch (err) {
    say({ id, error: err.stack })
  }
}).on('close', () => process.exit(0))
