// The reference's side of tests/swarm/interop.rs: a testnet of full nodes and a Hyperswarm on it.
//
// A line of JSON in is a command, a line of JSON out is an event. Every message of a connection is
// sent back, its bytes reversed.
//
//   in   {"cmd":"join","topic":hex,"server":bool,"client":bool}
//        {"cmd":"send","key":hex,"bytes":n,"fill":n}     to the peer of that key
//        {"cmd":"close","key":hex}
//   out  {"event":"ready","bootstrap":[port…],"key":hex}
//        {"event":"connection","key":hex,"initiator":bool,"hash":hex}
//        {"event":"message","key":hex,"bytes":n,"sum":n}
//        {"event":"close","key":hex}  {"event":"flushed"}
const createTestnet = require('hyperdht/testnet')
const DHT = require('hyperdht')
const Hyperswarm = require('hyperswarm')
const readline = require('readline')

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const hex = (buffer) => buffer.toString('hex')

async function main() {
  const bootstrap = process.argv[2] ? JSON.parse(process.argv[2]) : null
  const testnet = bootstrap ? null : await createTestnet(4)
  // On loopback only, as the peers that it meets.
  const options = { bootstrap: bootstrap || testnet.bootstrap, host: '127.0.0.1' }
  const swarm = new Hyperswarm({ dht: new DHT(options) })
  const connections = new Map()

  swarm.on('connection', (connection) => {
    const key = hex(connection.remotePublicKey)
    connections.set(key, connection)
    connection.on('error', () => {})
    connection.on('close', () => {
      if (connections.get(key) === connection) connections.delete(key)
      say({ event: 'close', key })
    })
    connection.on('end', () => connection.end())
    connection.on('data', (data) => {
      let sum = 0
      for (const byte of data) sum = (sum * 31 + byte) >>> 0
      say({ event: 'message', key, bytes: data.length, sum })
      connection.write(Buffer.from(data).reverse())
    })
    const hash = hex(connection.handshakeHash)
    say({ event: 'connection', key, initiator: connection.isInitiator, hash })
  })

  readline.createInterface({ input: process.stdin }).on('line', async (line) => {
    const command = JSON.parse(line)
    const connection = connections.get(command.key)
    if (command.cmd === 'join') {
      const topic = Buffer.from(command.topic, 'hex')
      await swarm.join(topic, { server: command.server, client: command.client }).flushed()
      say({ event: 'flushed' })
    } else if (command.cmd === 'send') {
      connection.write(Buffer.alloc(command.bytes, command.fill))
    } else if (command.cmd === 'close') {
      connection.end()
    }
  })

  const ports = (bootstrap || testnet.bootstrap).map((node) => node.port)
  say({ event: 'ready', bootstrap: ports, key: hex(swarm.keyPair.publicKey) })
}

main()
