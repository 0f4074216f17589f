// How every command and built-in filter starts: dist/bin/NAME calls this (as dist/code/start.cjs) with the name of its
// bundle. The bundle is compiled from V8's code cache, made at build time beside it, which halves what a start
// costs. V8 takes the cache only for the very version and flags of Node that made it, and compiles otherwise.
'use strict';
const { readFileSync } = require('node:fs');
const { createRequire, wrap } = require('node:module');
const { join } = require('node:path');
const { Script } = require('node:vm');

/** Run a bundle; the Script, for the build to make its cache of. */
module.exports = function start(name) {
  const filename = join(__dirname, `${name}.cjs`);
  let cachedData;
  try {
    cachedData = readFileSync(join(__dirname, `${name}.cache`));
  } catch {
    // Built without.
  }
  const script = new Script(wrap(readFileSync(filename, 'utf8')), { filename, cachedData });
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(filename), module, filename, __dirname);
  return script;
};
