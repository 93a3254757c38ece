// Read a tar+gzip blob as Node streams it: read.js BLOB < SUMS
'use strict';
const assert = require('node:assert');
const { createHash } = require('node:crypto');
const { createReadStream, readFileSync } = require('node:fs');
const { createGunzip } = require('node:zlib');

const BLOCK = 512;

/** Yields [path, digest] of each regular file; anything but files and directories throws. */
async function* files(tar) {
  let buffer = Buffer.alloc(0); // not yet consumed, less than one block between chunks
  let left = 0; // bytes of the current file still to come
  let padding = 0;
  let path, hash;
  let ended = false; // a zero block was seen: only zeros may follow
  for await (const chunk of tar) {
    buffer = Buffer.concat([buffer, chunk]);
    for (;;) {
      if (left > 0 || padding > 0) {
        const content = buffer.subarray(0, left);
        hash.update(content);
        left -= content.length;
        buffer = buffer.subarray(content.length);
        if (left > 0 || buffer.length < padding) break;
        buffer = buffer.subarray(padding);
        padding = 0;
        yield [path, hash.digest('hex')];
      }
      if (buffer.length < BLOCK) break;
      const header = buffer.subarray(0, BLOCK);
      buffer = buffer.subarray(BLOCK);
      ended ||= header.every((byte) => byte === 0);
      if (ended) {
        assert(header.every((byte) => byte === 0), 'data after the end of the archive');
        continue;
      }
      const text = (from, to) => header.toString('utf8', from, to).split('\0', 1)[0];
      path = [text(345, 500), text(0, 100)].filter(Boolean).join('/');
      const type = text(156, 157);
      if (type === '5') continue;
      assert(type === '0' || type === '', `${path}: type ${type}`);
      left = parseInt(text(124, 136), 8);
      padding = (BLOCK - (left % BLOCK)) % BLOCK;
      hash = createHash('sha256');
      if (left === 0) yield [path, hash.digest('hex')];
    }
  }
  assert(ended && buffer.length === 0, 'the archive ends early');
}

/** Throws unless tar holds exactly the files that the lines name. */
async function verify(tar, lines) {
  const want = new Map(lines.map((line) => [line.slice(66), line.slice(0, 64)]));
  assert(want.size > 0, 'no files expected');
  for await (const [path, digest] of files(tar)) {
    assert.strictEqual(digest, want.get(path), path);
    want.delete(path);
  }
  assert.deepStrictEqual([...want.keys()], [], 'missing');
}

const lines = readFileSync(0, 'utf8').split('\n').filter(Boolean);
const blob = createReadStream(process.argv[2]);
const tar = createGunzip();
blob.on('error', (err) => tar.destroy(err)).pipe(tar);
verify(tar, lines).catch((err) => {
  console.error(err.message);
  process.exitCode = 1;
});
