'use strict'
// The JavaScript side of the table: one JSON command per line on stdin, one JSON answer per line on stdout.
// It owns one Corestore and one Hyperswarm. Times are taken here, so that they hold no cost of the pipe.
const fs = require('fs')
const path = require('path')
const readline = require('readline')
const createTestnet = require('hyperdht/testnet')
const Hyperswarm = require('hyperswarm')
const Corestore = require('corestore')
const Hyperdrive = require('hyperdrive')
const IdEncoding = require('hypercore-id-encoding')

let store = null
let swarm = null
let drive = null

const timed = async (work) => {
  const begin = process.hrtime.bigint()
  const value = await work()
  return { ...value, ms: Number(process.hrtime.bigint() - begin) / 1e6 }
}

// One large file as programs do it: piped from the file in its usual chunks of 64 KiB, each of which becomes a
// block, as it would with `put` and as hdrive cuts it.
const pipe = (from, to) =>
  new Promise((resolve, reject) => {
    const out = drive.createWriteStream(to)
    const source = fs.createReadStream(from)
    source.on('error', reject)
    source.pipe(out).on('close', resolve).on('error', reject)
  })

const ops = {
  async testnet() {
    const testnet = await createTestnet(3)
    return { bootstrap: testnet.bootstrap.map((n) => n.host + ':' + n.port) }
  },

  async start({ bootstrap, dir }) {
    store = new Corestore(dir)
    await store.ready()
    swarm = new Hyperswarm({ bootstrap })
    swarm.on('connection', (conn) => {
      conn.on('error', () => {})
      store.replicate(conn)
    })
    return {}
  },

  async create() {
    drive = new Hyperdrive(store)
    await drive.ready()
    return { key: drive.key.toString('hex') }
  },

  // Until the drive's version is known from a peer.
  open({ key }) {
    return timed(async () => {
      drive = new Hyperdrive(store.namespace(key), IdEncoding.decode(key))
      await drive.ready()
      const done = drive.findingPeers()
      swarm.join(drive.discoveryKey, { server: false, client: true })
      swarm.flush().then(done, done)
      // An update ends without news when the swarm's first round found nobody.
      while (drive.version <= 1) {
        await drive.update({ wait: true })
        if (drive.version <= 1) await new Promise((resolve) => setTimeout(resolve, 10))
      }
      return { version: drive.version }
    })
  },

  async announce() {
    await swarm.join(drive.discoveryKey, { server: true, client: false }).flushed()
    return {}
  },

  put({ from, to }) {
    return timed(() => pipe(from, to))
  },

  // Every file below the folder, or the first `limit` of them, each read whole and put.
  putFolder({ from, limit = Infinity }) {
    return timed(async () => {
      let files = 0
      const entries = fs.readdirSync(from, { recursive: true, withFileTypes: true })
      for (const entry of entries) {
        if (!entry.isFile() || files === limit) continue
        const full = path.join(entry.parentPath, entry.name)
        await drive.put('/' + path.relative(from, full), fs.readFileSync(full))
        files++
      }
      return { files }
    })
  },

  get({ name }) {
    return timed(async () => {
      const data = await drive.get(name)
      return { bytes: data.byteLength }
    })
  },

  list() {
    return timed(async () => {
      let files = 0
      for await (const _ of drive.list('/')) files++ // eslint-disable-line no-unused-vars
      return { files }
    })
  },

  async memory() {
    return { rss: process.resourceUsage().maxRSS * 1024 }
  }
}

const lines = readline.createInterface({ input: process.stdin })
lines.on('line', async (line) => {
  const { op, ...args } = JSON.parse(line)
  let answer
  try {
    answer = await ops[op](args)
  } catch (err) {
    answer = { error: err.stack || String(err) }
  }
  process.stdout.write('ANSWER ' + JSON.stringify(answer || {}) + '\n')
})
lines.on('close', () => process.exit(0))
