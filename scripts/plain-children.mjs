// Loaded into every test by scripts/test.mjs: what a test starts is started as a user would start it.
//
// tap follows all child processes of a test for its coverage, by a loader that it puts into their NODE_OPTIONS:
// each command of ours would take thrice its time to start, and under another user could not even end (the loader
// writes into .tap). We measure no coverage. NODE_EXTRA_CA_CERTS, where a machine has it, makes every node read
// certificates at its start; the same again.
import processOnSpawn from 'process-on-spawn';

delete process.env.NODE_OPTIONS;
delete process.env.NODE_EXTRA_CA_CERTS;
processOnSpawn.removeAllListeners();
processOnSpawn.addListener = () => undefined;
