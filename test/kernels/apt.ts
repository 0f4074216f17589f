/**
 * Debian's archive, asked through a private apt configuration: nothing of the running system's package lists is
 * read or changed, no right is needed, and every byte is checked against Debian's keys by apt itself.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** In this order: what leaves the first lives on in the second. */
const mirrors = ['http://deb.debian.org', 'http://archive.debian.org'];
const limit = 300_000;

/** The archive can't be reached, or does not have the suite any more. */
export class NoArchive extends Error {}

export class Apt {
  readonly #folder: string;
  readonly #suites: readonly string[];
  readonly #archive: string;

  /** `folder` is apt's for these suites; what several of them have is taken from the first. */
  constructor(
    folder: string,
    suites: readonly string[],
    archive: 'debian' | 'debian-security' = 'debian-security',
  ) {
    this.#folder = folder;
    this.#suites = suites;
    this.#archive = archive;
  }

  get #suite(): string {
    return this.#suites[0]!;
  }

  #options(): string[] {
    const settings = {
      'Dir::State': join(this.#folder, 'state'),
      'Dir::State::status': '/dev/null',
      'Dir::Cache': join(this.#folder, 'cache'),
      'Dir::Etc::sourcelist': join(this.#folder, 'sources.list'),
      'Dir::Etc::sourceparts': '-',
      'Dir::Etc::preferences': '/dev/null',
      'Dir::Etc::preferencesparts': '-',
      'APT::Architecture': 'amd64',
      ...(this.#suites.length > 1 ? { 'APT::Default-Release': this.#suite } : {}),
      'APT::Sandbox::User': 'root',
      'Acquire::Languages': 'none',
      'Acquire::Check-Valid-Until': 'false',
      'Acquire::Retries': '3',
    };
    return Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
  }

  /** Fetch the suite's package list. */
  async update(): Promise<void> {
    if (!existsSync(keyring)) throw new Error(`${keyring} is not here: install debian-archive-keyring`);
    for (const name of ['state/lists/partial', 'cache/archives/partial'])
      mkdirSync(join(this.#folder, name), { recursive: true });
    let cause: unknown;
    for (const mirror of mirrors) {
      writeFileSync(
        join(this.#folder, 'sources.list'),
        this.#suites
          .map((suite) => `deb [signed-by=${keyring}] ${mirror}/${this.#archive} ${suite} main\n`)
          .join(''),
      );
      try {
        await run('apt-get', [...this.#options(), 'update', '-qq', '--error-on=any'], { timeout: limit });
        return;
      } catch (error) {
        cause ??= error;
      }
    }
    throw new NoArchive(`Debian's ${this.#suite} cannot be had`, { cause });
  }

  /** What a package depends on. */
  async depends(name: string): Promise<string[]> {
    const { stdout } = await run('apt-cache', [...this.#options(), 'depends', name], { timeout: limit });
    return [...stdout.matchAll(/^\s*Depends: (\S+)$/gm)].map((match) => match[1]!);
  }

  /** It, what it depends on, what that depends on, and so on. */
  async dependsDeep(name: string): Promise<string[]> {
    const only = ['recommends', 'suggests', 'conflicts', 'breaks', 'replaces', 'enhances'];
    const words = ['depends', '--recurse', ...only.map((kind) => `--no-${kind}`), name];
    const { stdout } = await run('apt-cache', [...this.#options(), ...words], { timeout: limit });
    return stdout.split('\n').filter((line) => /^[a-z0-9]/.test(line));
  }

  /** The package that a meta package stands for now. */
  async resolve(metaPackage: string): Promise<string> {
    const name = (await this.depends(metaPackage)).find((each) => each.startsWith('linux-image-'));
    if (!name) throw new Error(`${metaPackage} of ${this.#suite} names no kernel`);
    return name;
  }

  /** Download a package into a folder; the path of the .deb. */
  async download(name: string, folder: string): Promise<string> {
    mkdirSync(folder, { recursive: true });
    await run('apt-get', [...this.#options(), 'download', '-qq', name], { cwd: folder, timeout: limit });
    const file = readdirSync(folder).find((each) => each.startsWith(`${name}_`) && each.endsWith('.deb'));
    if (!file) throw new Error(`apt-get download ${name} left no package`);
    return join(folder, file);
  }
}
