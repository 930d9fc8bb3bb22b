'use strict'
// A JavaScript peer that a test drives: one JSON command per line on stdin, one JSON answer per line on
// stdout. It owns one Corestore and one Hyperswarm (or only a private DHT, with {"op":"testnet"}).
const crypto = require('crypto')
const fs = require('fs')
const path = require('path')
const readline = require('readline')
const DHT = require('hyperdht')
const createTestnet = require('hyperdht/testnet')
const Hyperswarm = require('hyperswarm')
const Corestore = require('corestore')
const Hypercore = require('hypercore')
const Hyperdrive = require('hyperdrive')

const drives = new Map()
let store = null
let swarm = null
let testnet = null

const content = (c) => {
  if (c.text !== undefined) return Buffer.from(c.text)
  if (c.base64 !== undefined) return Buffer.from(c.base64, 'base64')
  return pattern(c.seed || 1, c.size)
}

// The same bytes as `pattern` in tests/common: xorshift32, little endian.
function pattern(seed, size) {
  const out = Buffer.alloc(size)
  let x = seed >>> 0
  for (let i = 0; i < size; i += 4) {
    x ^= x << 13
    x >>>= 0
    x ^= x >>> 17
    x ^= x << 5
    x >>>= 0
    for (let j = 0; j < 4 && i + j < size; j++) out[i + j] = (x >>> (8 * j)) & 255
  }
  return out
}

function add(drive) {
  const key = drive.key.toString('hex')
  drives.set(key, drive)
  return key
}

async function announce(drive, options) {
  const session = swarm.join(drive.discoveryKey, options)
  await session.flushed()
}

const stream = (drive, name, chunks, options) =>
  new Promise((resolve, reject) => {
    const out = drive.createWriteStream(name, options)
    out.on('error', reject)
    out.on('close', resolve)
    for (const chunk of chunks) out.write(chunk)
    out.end()
  })

const ops = {
  async testnet({ size = 3 }) {
    testnet = await createTestnet(size)
    return { bootstrap: testnet.bootstrap.map((n) => n.host + ':' + n.port) }
  },

  async start({ bootstrap, dir }) {
    store = new Corestore(dir)
    await store.ready()
    // On loopback only. A peer that binds every address samples its NAT from three nodes; a private network
    // may have one.
    swarm = new Hyperswarm({ dht: new DHT({ bootstrap, host: '127.0.0.1' }) })
    swarm.on('connection', (conn) => {
      conn.on('error', () => {})
      store.replicate(conn)
    })
    return { publicKey: swarm.keyPair.publicKey.toString('hex') }
  },

  async create({ name = 'main', encryptionKey }) {
    const key = encryptionKey ? Buffer.from(encryptionKey, 'hex') : null
    const drive = new Hyperdrive(store.namespace(name), { encryptionKey: key })
    await drive.ready()
    return { key: add(drive) }
  },

  // A drive as hyperdrive 11.0 made them: the key is the signer's public key, the blobs key is in the header.
  async createCompat() {
    const space = store.namespace('compat')
    const keyPair = await space.createKeyPair('db')
    const core = new Hypercore(space.storage, { compat: true, keyPair, key: keyPair.publicKey })
    await core.ready()
    const drive = new Hyperdrive(space, core.key)
    await drive.ready()
    drive.db.core.setKeyPair(keyPair)
    return { key: add(drive) }
  },

  async open({ key, encryptionKey, name = 'open' }) {
    const secret = encryptionKey ? Buffer.from(encryptionKey, 'hex') : null
    const drive = new Hyperdrive(store.namespace(name), Buffer.from(key, 'hex'), { encryptionKey: secret })
    await drive.ready()
    const done = drive.findingPeers()
    swarm.join(drive.discoveryKey, { server: false, client: true })
    swarm.flush().then(done, done)
    return { key: add(drive) }
  },

  async announce({ key }) {
    await announce(drives.get(key), { server: true, client: true })
    return {}
  },

  async put({ key, path, executable = false, metadata = null, ...c }) {
    await drives.get(key).put(path, content(c), { executable, metadata })
    return {}
  },

  async fill({ key, count, size, prefix = '/many' }) {
    const batch = drives.get(key).batch()
    for (let i = 0; i < count; i++) {
      const dir = String(Math.floor(i / 100)).padStart(4, '0')
      await batch.put(`${prefix}/${dir}/file-${String(i).padStart(6, '0')}`, pattern(i + 1, size))
    }
    await batch.flush()
    return {}
  },

  async symlink({ key, path, target }) {
    await drives.get(key).symlink(path, target)
    return {}
  },

  async del({ key, path }) {
    await drives.get(key).del(path)
    return {}
  },

  // Chunks kept as blocks, and a block map when dedup is set.
  async chunks({ key, path, list, dedup = false }) {
    await stream(drives.get(key), path, list.map(content), dedup ? { dedup: true } : {})
    return {}
  },

  // Gives up the blocks that an entry names: of a block map, the map and what it lists. The tree nodes between them
  // go as well, so that their neighbours cannot be proven any more.
  async clear({ key, path }) {
    await drives.get(key).clear(path)
    return {}
  },

  // An entry exactly as given: hostile names and values.
  async entry({ key, path, value }) {
    const SubEncoder = require('sub-encoder')
    const enc = new SubEncoder('files', 'utf-8')
    await drives.get(key).db.put(path, value, { keyEncoding: enc })
    return {}
  },

  async truncate({ key, version }) {
    await drives.get(key).truncate(version)
    return {}
  },

  async version({ key }) {
    const drive = drives.get(key)
    return { version: drive.version, blobs: drive.blobs ? drive.blobs.core.length : 0 }
  },

  // Waits for an update and lists every file of one version with the hash of its content.
  async list({ key, version = 0, hash = true }) {
    const live = drives.get(key)
    await live.update({ wait: live.version <= 1 })
    while (live.version < version) await live.update({ wait: true })
    // A name may be deleted while the drive is listed.
    const drive = live.checkout(live.version)
    const entries = []
    for await (const { key: name, value } of drive.list('/')) {
      const entry = { path: name, executable: value.executable, linkname: value.linkname, metadata: value.metadata }
      if (value.blob && hash) {
        const sha = crypto.createHash('sha256')
        let size = 0
        for await (const chunk of drive.createReadStream(name)) {
          sha.update(chunk)
          size += chunk.length
        }
        Object.assign(entry, { size, sha256: sha.digest('hex') })
      }
      entries.push(entry)
    }
    return { entries }
  },

  async get({ key, path }) {
    const data = await drives.get(key).get(path)
    return { base64: data ? data.toString('base64') : null }
  },

  // Reads a whole file and tells how long it took.
  async time({ key, path }) {
    const drive = drives.get(key)
    await drive.update({ wait: drive.version <= 1 })
    const begin = Date.now()
    let size = 0
    for await (const chunk of drive.createReadStream(path)) size += chunk.length
    return { size, ms: Date.now() - begin, rss: process.memoryUsage().rss }
  },

  // Imports a folder as mirror-drive would: every file below it.
  async importFolder({ key, folder }) {
    const drive = drives.get(key)
    const begin = Date.now()
    let files = 0
    for (const entry of fs.readdirSync(folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue
      const full = path.join(entry.parentPath, entry.name)
      const name = '/' + path.relative(folder, full)
      const out = drive.createWriteStream(name)
      await new Promise((resolve, reject) => {
        fs.createReadStream(full, { highWaterMark: 65536 }).pipe(out).on('close', resolve).on('error', reject)
      })
      files++
    }
    return { files, ms: Date.now() - begin, rss: process.memoryUsage().rss }
  },

  async peers() {
    return { connections: swarm.connections.size }
  },

  // Whether a connected peer says that it has this block of the contents.
  async remoteHas({ key, block }) {
    const blobs = await drives.get(key).getBlobs()
    return { has: blobs.core.peers.some((peer) => peer._remoteHasBlock(block)) }
  },

  // A HyperDHT server that echoes, and a client that asks one.
  async listen({ bootstrap }) {
    const dht = new DHT({ bootstrap, host: '127.0.0.1' })
    const server = dht.createServer((conn) => {
      conn.on('error', () => {})
      conn.on('data', (data) => conn.write(data))
    })
    await server.listen()
    return { publicKey: server.publicKey.toString('hex') }
  },

  async echo({ bootstrap, publicKey }) {
    const dht = new DHT({ bootstrap, host: '127.0.0.1' })
    await dht.fullyBootstrapped()
    const conn = dht.connect(Buffer.from(publicKey, 'hex'))
    conn.on('error', () => {})
    conn.write('hello')
    const data = await new Promise((resolve) => {
      conn.once('data', resolve)
      conn.once('close', () => resolve('closed'))
    })
    await dht.destroy()
    return { text: data.toString() }
  },

  async exit() {
    setTimeout(() => process.exit(0), 10)
    return {}
  }
}

const lines = readline.createInterface({ input: process.stdin })
lines.on('line', async (line) => {
  const { id, op, ...args } = JSON.parse(line)
  let answer
  try {
    answer = await ops[op](args)
  } catch (err) {
    answer = { error: err.stack || String(err) }
  }
  process.stdout.write(JSON.stringify({ id, ...answer }) + '\n')
})
lines.on('close', () => process.exit(0))
process.on('unhandledRejection', (err) => process.stderr.write('unhandled: ' + err.stack + '\n'))
