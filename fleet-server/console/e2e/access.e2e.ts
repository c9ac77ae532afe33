/** For everybody: keyboard alone, both languages, light and dark, narrow and wide, and what axe finds. */
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { axe, collectFaults, launch, open, overflow, settings, signIn, type Look } from './browser';
import { story } from './story';

const LOOKS: readonly (readonly [string, Look])[] = [
  ['English, light, 1600 px', { width: 1600, locale: 'en-US', scheme: 'light' }],
  ['English, dark, 360 px', { width: 360, height: 780, locale: 'en-US', scheme: 'dark' }],
  ['Portuguese, light, 360 px', { width: 360, height: 780, locale: 'pt-BR', scheme: 'light' }],
  ['Portuguese, dark, 1600 px', { width: 1600, locale: 'pt-BR', scheme: 'dark' }],
];

const focused = (page: Page) =>
  page.evaluate(() => {
    const element = document.activeElement;
    const outline = element ? getComputedStyle(element) : null;
    return {
      text: (element?.getAttribute('aria-label') ?? element?.textContent ?? '').trim(),
      isVisible: outline !== null && outline.outlineStyle !== 'none' && outline.outlineWidth !== '0px',
    };
  });

/** Presses Tab until the element with that text has the focus. */
async function tabTo(page: Page, text: RegExp, most = 60): Promise<void> {
  for (let presses = 0; presses < most; presses += 1) {
    await page.keyboard.press('Tab');
    const now = await focused(page);
    if (text.test(now.text)) {
      expect(now.isVisible, `focus on ${now.text} is visible`).toBe(true);
      return;
    }
  }
  throw new Error(`Tab never reached ${String(text)}`);
}

/** A lost style sheet still passes axe: the frame must stand as drawn. */
const isBesideNavigation = (page: Page) =>
  page.evaluate(() => {
    const [side, main] = ['.sidebar', 'main'].map((name) =>
      document.querySelector(name)?.getBoundingClientRect(),
    );
    return (
      side !== undefined && main !== undefined && side.right <= main.left + 1 && side.top <= main.top + 1
    );
  });

describe('access', () => {
  let browser: Browser;
  let state: string;

  beforeAll(async () => {
    browser = await launch();
    const context = await open(browser);
    const page = await context.newPage();
    await signIn(page);
    state = JSON.stringify(await context.storageState());
    await context.close();
  });
  afterAll(() => browser.close());

  it.each(LOOKS)(
    'every page holds: %s',
    async (_name, look) => {
      const context = await open(browser, { ...look, state });
      const page = await context.newPage();
      const faults = collectFaults(page);
      for (const [title, path] of Object.entries(await story(page))) {
        await page.goto(`/p/${settings.project}/${path}`);
        await page.locator('h1').first().waitFor();
        await page.waitForFunction(
          () => document.querySelectorAll('.skeleton, [aria-busy=true]').length === 0,
        );
        expect(await axe(page), `${title}: axe`).toEqual([]);
        if (look.width === 1600)
          expect(await isBesideNavigation(page), `${title}: navigation beside content`).toBe(true);
        expect(await overflow(page), `${title}: wider than the screen`).toBeLessThanOrEqual(0);
        expect(await page.evaluate(() => document.documentElement.lang), title).toBe(
          look.locale === 'pt-BR' ? 'pt-BR' : 'en',
        );
      }
      expect(faults).toEqual([]);
      await context.close();
    },
    180_000,
  );

  it('the sign-in page holds in both languages', async () => {
    for (const locale of ['en-US', 'pt-BR'] as const) {
      const context = await open(browser, { locale, width: 360, height: 780 });
      const page = await context.newPage();
      await page.goto('/login');
      await page
        .getByRole('heading', { level: 1, name: locale === 'pt-BR' ? 'Entrar' : 'Sign in' })
        .waitFor();
      expect(await axe(page)).toEqual([]);
      expect(await overflow(page)).toBeLessThanOrEqual(0);
      await context.close();
    }
  });

  it('everything goes with the keyboard alone', async () => {
    const context = await open(browser);
    const page = await context.newPage();
    await page.goto('/');
    await page.getByRole('heading', { level: 1, name: 'Sign in' }).waitFor();
    await page.keyboard.type(settings.user); // The first field has the focus.
    await page.keyboard.press('Tab');
    await page.keyboard.type(settings.password());
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { level: 1, name: 'Fleet overview' }).waitFor();

    await tabTo(page, /^Skip to content$/);
    await tabTo(page, /^Devices$/);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { level: 1, name: 'Devices' }).waitFor();
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('main');

    await tabTo(page, /^Enrol device$/);
    await page.keyboard.press('Enter');
    await page.getByRole('dialog', { name: 'Enrol a device' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    expect((await focused(page)).text).toBe('Enrol device');

    const device = page.getByRole('region', { name: 'Devices', exact: true }).locator('tbody a').first();
    const name = ((await device.textContent()) ?? '').trim();
    await tabTo(page, new RegExp(`^${name}$`));
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { level: 1, name }).waitFor();
    await context.close();
  });

  it('theme and language are chosen by keyboard and stay after a reload', async () => {
    const context = await open(browser, { state, scheme: 'light' });
    const page = await context.newPage();
    const scheme = () => page.evaluate(() => getComputedStyle(document.documentElement).colorScheme);
    await page.goto(`/p/${settings.project}/overview`);
    await page.getByRole('heading', { level: 1, name: 'Fleet overview' }).waitFor();

    await page.getByRole('button', { name: 'Colour theme' }).focus();
    await page.keyboard.press('Enter');
    await page.getByRole('menuitemradio', { name: 'Dark' }).waitFor();
    await page.keyboard.press('End');
    await page.keyboard.press('Enter');
    await expect.poll(scheme).toBe('dark');

    await page.getByRole('button', { name: 'Language' }).focus();
    await page.keyboard.press('Enter');
    await page.getByRole('menuitemradio', { name: /Português/ }).waitFor();
    await page.keyboard.press('End');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { level: 1, name: 'Visão geral da frota' }).waitFor();

    await page.reload();
    await page.getByRole('heading', { level: 1, name: 'Visão geral da frota' }).waitFor();
    expect(await scheme()).toBe('dark');
    await context.close();
  });

  it('cards are put in order on a narrow screen', async () => {
    const context = await open(browser, { state, width: 390, height: 780 });
    const page = await context.newPage();
    await page.goto(`/p/${settings.project}/devices`);
    const region = page.getByRole('region', { name: 'Devices', exact: true });
    const names = () => region.locator('tbody tr td:first-child a').allTextContents();
    await region.locator('tbody a').first().waitFor();
    const before = await names();
    expect(before.length).toBeGreaterThan(1);
    await region.getByRole('button', { name: /Order/ }).click();
    await page.getByRole('option', { name: 'Device, descending' }).click();
    await expect.poll(names).toEqual(before.toReversed());
    await page.setViewportSize({ width: 1280, height: 900 });
    await region.getByRole('button', { name: /Order/ }).waitFor({ state: 'hidden' });
    await context.close();
  });

  it('charts are drawn at once where motion is not wanted', async () => {
    const context = await open(browser, { state });
    const page = await context.newPage();
    await page.goto(`/p/${settings.project}/drift/${settings.model}`);
    const point = page.locator('.chart-series circle').last();
    await point.waitFor({ state: 'attached' });
    // A transition of the places themselves would leave a picture with lines past their axes.
    expect(await point.evaluate((element) => getComputedStyle(element).transitionDuration)).toBe('0s');
    await context.close();
  });

  it('the navigation opens on a narrow screen', async () => {
    const context = await open(browser, { state, width: 360, height: 780 });
    const page = await context.newPage();
    await page.goto(`/p/${settings.project}/overview`);
    await page.getByRole('button', { name: 'Open navigation' }).click();
    await page.getByRole('link', { name: 'Rollouts', exact: true }).click();
    await page.getByRole('heading', { level: 1, name: 'Rollouts' }).waitFor();
    await page.getByRole('navigation', { name: 'Main' }).waitFor({ state: 'hidden' });
    await context.close();
  });
});
