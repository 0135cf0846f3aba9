// Runs the suite: every file of test/, each in a process and on a network of its own.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

const folder = fileURLToPath(new URL('../test', import.meta.url));
const files = readdirSync(folder).filter((name) => name.endsWith('.test.js')).sort();
const ran = spawnSync(process.execPath, ['--test', '--test-reporter=spec', ...files.map((name) => join(folder, name))], { stdio: 'inherit' });
process.exit(ran.status ?? 1);
