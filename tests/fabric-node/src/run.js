// Runs the suite: every file of test/, each in a process and on a network of its own.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

const folder = fileURLToPath(new URL('../test', import.meta.url));
const files = readdirSync(folder).filter((name) => name.endsWith('.test.js')).sort();
// A real network is one for all files, and some tests count its blocks: there, one file goes after the other.
const runs = process.env.FABRIC_NETWORK ? files.map((name) => [name]) : [files];
let failed = 0;
for (const run of runs) {
  const words = ['--test', '--test-reporter=spec', ...run.map((name) => join(folder, name))];
  failed += spawnSync(process.execPath, words, { stdio: 'inherit' }).status === 0 ? 0 : 1;
}
process.exit(failed === 0 ? 0 : 1);
