/** Debian's Chromium against a running server. Where it is and who signs in comes from the environment. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';

function need(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') throw new Error(`${name} is not set: see e2e/README.md`);
  return value;
}

export const settings = {
  url: process.env.FLOTILLA_URL ?? 'https://127.0.0.1:8443',
  user: process.env.FLOTILLA_USER ?? 'admin',
  password: () => need('FLOTILLA_PASSWORD'),
  project: process.env.FLOTILLA_PROJECT ?? 'default',
  model: process.env.FLOTILLA_MODEL ?? 'digits',
  chromium: process.env.CHROMIUM ?? '/usr/bin/chromium',
};

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: settings.chromium, args: FLAGS, headless: true });
}

type StorageState = Awaited<ReturnType<BrowserContext['storageState']>>;

export interface Look {
  readonly width?: number;
  readonly height?: number;
  readonly scheme?: 'light' | 'dark';
  readonly locale?: 'en-US' | 'pt-BR';
  /** Cookies and storage of a signed-in person, as JSON. */
  readonly state?: string;
}

export async function open(browser: Browser, look: Look = {}): Promise<BrowserContext> {
  const context = await browser.newContext({
    baseURL: settings.url,
    ignoreHTTPSErrors: true, // The demo's own CA.
    viewport: { width: look.width ?? 1280, height: look.height ?? 900 },
    colorScheme: look.scheme ?? 'light',
    locale: look.locale ?? 'en-US',
    reducedMotion: 'reduce',
    ...(look.state !== undefined && { storageState: JSON.parse(look.state) as StorageState }),
  });
  context.setDefaultTimeout(15_000);
  return context;
}

/** Everything that a page must never do: uncaught errors, console errors, requests that the CSP blocked. */
export function collectFaults(page: Page): string[] {
  const faults: string[] = [];
  page.on('pageerror', (error) => faults.push(`uncaught: ${error.message}`));
  page.on('console', (message) => {
    // A 401 before sign-in is how the page learns that nobody is signed in.
    if (message.type() === 'error' && !/status of 40[14]/.test(message.text())) faults.push(message.text());
  });
  return faults;
}

export async function signIn(page: Page): Promise<void> {
  await page.goto('/');
  await page.locator('input[autocomplete=username]').fill(settings.user);
  await page.locator('input[autocomplete=current-password]').fill(settings.password());
  await page.keyboard.press('Enter');
  await page.waitForURL('**/p/**');
  await page.locator('main h1').waitFor();
}

const axePath = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const axeSource = readFileSync(axePath, 'utf8');

interface AxeViolation {
  readonly id: string;
  readonly impact: string | null;
  readonly nodes: readonly { readonly target: readonly unknown[]; readonly failureSummary?: string }[];
}

/** Rules of WCAG 2.2 A and AA that axe can check; one line per finding. */
export async function axe(page: Page): Promise<string[]> {
  await page.evaluate(axeSource); // Through the debugger: the page's CSP stays as it is.
  const violations = await page.evaluate<readonly AxeViolation[]>(
    `axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] }).then((r) => r.violations)`,
  );
  return violations.flatMap((violation) =>
    violation.nodes.map(
      (node) =>
        `${violation.id} (${violation.impact ?? '?'}) at ${node.target.join(' ')}: ${node.failureSummary ?? ''}`,
    ),
  );
}

/** Nothing but tables and charts in their own scroll boxes may be wider than the screen. */
export async function overflow(page: Page): Promise<number> {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}
