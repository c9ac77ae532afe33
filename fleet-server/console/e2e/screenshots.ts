/** Pictures for the README: `npm run screenshots`. Written to e2e/output/ (or FLOTILLA_SCREENSHOTS). */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { launch, open, settings, signIn, type Look } from './browser';
import { story } from './story';

const folder = process.env.FLOTILLA_SCREENSHOTS ?? new URL('./output/', import.meta.url).pathname;

const LOOKS: Readonly<Record<string, Look>> = {
  light: { width: 1440, height: 960 },
  dark: { width: 1440, height: 960, scheme: 'dark' },
  narrow: { width: 360, height: 780, locale: 'pt-BR' },
};

describe('screenshots', () => {
  let browser: Browser;
  beforeAll(async () => {
    mkdirSync(folder, { recursive: true });
    browser = await launch();
  });
  afterAll(() => browser.close());

  it.each(Object.entries(LOOKS))('are taken, %s', async (name, look) => {
    const context = await open(browser, look);
    const page = await context.newPage();
    await signIn(page);
    for (const [title, path] of Object.entries(await story(page))) {
      await page.goto(`/p/${settings.project}/${path}`);
      await page.locator('main h1').waitFor();
      await page.waitForFunction(() => document.querySelectorAll('.skeleton, [aria-busy=true]').length === 0);
      await page.screenshot({
        path: join(folder, `${title}-${name}.png`),
        fullPage: process.env.FULL_PAGE === '1',
      });
    }
    await context.close();
  });
});
