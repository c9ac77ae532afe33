/** Clicks the demo's story through, as a person would. */
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { collectFaults, launch, open, settings, signIn } from './browser';
import { driftingDevice, rolloutIn } from './story';

const home = `/p/${settings.project}`;

describe('the story', () => {
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  let faults: string[];

  beforeAll(async () => {
    browser = await launch();
  });
  afterAll(() => browser.close());
  beforeEach(async () => {
    context = await open(browser);
    page = await context.newPage();
    faults = collectFaults(page);
  });
  afterEach(async () => {
    await context.close();
    expect(faults).toEqual([]);
  });

  const heading = (name: string | RegExp) => page.getByRole('heading', { level: 1, name }).waitFor();
  const nav = (name: string) =>
    page.getByRole('navigation', { name: 'Main' }).getByRole('link', { name }).click();

  it('asks for a name and a password, and says when they are wrong', async () => {
    await page.goto('/');
    await heading('Sign in');
    await page.getByLabel('User name').fill(settings.user);
    await page.getByLabel('Password').fill('certainly not this one');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').getByText('User name or password is wrong.').waitFor();
  });

  it('brings a deep link back after sign-in', async () => {
    await page.goto(`${home}/devices?online=true`);
    await heading('Sign in');
    expect(await page.getByText('Your session has ended').count()).toBe(0);
    await page.getByLabel('User name').fill(settings.user);
    await page.getByLabel('Password').fill(settings.password());
    await page.keyboard.press('Enter');
    await heading('Devices');
    expect(new URL(page.url()).search).toBe('?online=true');
  });

  it('signs out', async () => {
    await signIn(page);
    await page.getByRole('button', { name: /^Account of/ }).click();
    await page.getByRole('menuitem', { name: 'Sign out' }).click();
    await heading('Sign in');
    await page.goto(`${home}/devices`);
    await heading('Sign in');
  });

  it('shows the fleet: six devices, the releases they serve, the rollouts', async () => {
    await signIn(page);
    await heading('Fleet overview');
    await page.getByRole('heading', { name: 'Releases in the fleet' }).waitFor();
    await page.getByRole('link', { name: settings.model, exact: true }).first().waitFor();
    await nav('Devices');
    await heading('Devices');
    const rows = page
      .getByRole('region', { name: 'Devices', exact: true })
      .locator('tbody tr:not([aria-hidden])');
    await rows.nth(5).waitFor();
    expect(await rows.count()).toBe(6);
  });

  it('keeps filters and sorting in the address', async () => {
    await signIn(page);
    await page.goto(`${home}/devices`);
    const table = page.getByRole('region', { name: 'Devices', exact: true });
    const first = table.locator('tbody a').first();
    await first.waitFor();
    const name = (await first.textContent()) ?? '';
    await page.getByLabel('Search by name').fill(name);
    await page.waitForURL(/q=/);
    await page.getByRole('button', { name: 'Device', exact: true }).click();
    await page.waitForURL(/sort=device/);
    await page.reload();
    await table.getByRole('link', { name }).waitFor();
    expect(await page.getByLabel('Search by name').inputValue()).toBe(name);
    await page.getByLabel('Search by name').fill('no-such-device');
    await page.getByText('No device matches these filters').waitFor();
    await page.getByRole('link', { name: 'Clear filters' }).click();
    await table.getByRole('link').nth(5).waitFor();
  });

  it('explains one device: desired and reported, resources, history, why', async () => {
    await signIn(page);
    const device = await driftingDevice(page);
    await page.goto(`${home}/devices/${device}`);
    await heading(device);
    await page.getByRole('heading', { name: 'Models: reported and desired' }).waitFor();
    await page
      .getByText('What does the server say about this model?')
      .or(page.getByText('Why is this device not on the release?'))
      .waitFor();
    await page.getByRole('img', { name: 'Memory of the agent' }).waitFor();
    const history = page.getByRole('region', { name: 'Task history' });
    await history.getByText('Committed').first().waitFor();
  });

  it('shows releases with their variants and signatures', async () => {
    await signIn(page);
    await nav('Releases');
    await page.getByRole('link', { name: '1.1.0', exact: true }).click();
    await heading(`${settings.model} 1.1.0`);
    const variants = page.getByRole('region', { name: 'Variants', exact: true }).last();
    for (const variant of ['int8', 'f16', 'f32'])
      await variants.getByText(variant, { exact: true }).first().waitFor();
    await page.getByRole('region', { name: 'Who signed' }).getByText(settings.model).first().waitFor();
    const samples = page.getByRole('region', { name: 'Samples for retraining' });
    await samples.getByText(/No device has sent samples|flotilla samples download/).waitFor();
    await page.getByRole('heading', { name: 'Model card' }).waitFor();
  });

  it('shows why 2.0.0 was rolled back: the gate, both groups and the arithmetic', async () => {
    await signIn(page);
    await nav('Rollouts');
    await page
      .getByRole('link', { name: `${settings.model} 2.0.0` })
      .first()
      .click();
    await heading(`${settings.model} 2.0.0`);
    await page.getByText('Rolled back').first().waitFor();
    const gate = page
      .getByRole('listitem')
      .filter({ has: page.getByRole('heading', { name: /^(Estimated a|A)ccuracy/ }), hasText: 'Failed' });
    await gate.first().waitFor();
    const text = (await gate.first().textContent()) ?? '';
    expect(text).toContain('Control group');
    expect(text).toMatch(/n = [\d,]+, devices: \d/);
    await gate.first().getByText('Arithmetic').click();
    await page.getByRole('heading', { name: 'Journal' }).waitFor();
    const evidence = page.getByRole('link', { name: 'Signed evidence' });
    const response = await page.request.get(
      new URL((await evidence.getAttribute('href')) ?? '', settings.url).href,
    );
    expect(response.status()).toBe(200);
  });

  it('shows the completed rollout with every gate passed', async () => {
    await signIn(page);
    await page.goto(`${home}/rollouts/${await rolloutIn(page, 'completed')}`);
    await page.getByText('Completed').first().waitFor();
    const stages = page.getByRole('list', { name: 'Stages' }).getByRole('button');
    expect(await stages.filter({ hasText: 'Gate passed' }).count()).toBe(await stages.count());
    await stages.first().click();
    await page.waitForURL(/stage=1/);
  });

  it('tells which device drifts and draws the distributions', async () => {
    await signIn(page);
    await nav('Drift');
    await heading(`Drift of ${settings.model}`);
    const device = await driftingDevice(page);
    const devices = page.getByRole('region', { name: 'Which devices drift now' });
    await devices.getByRole('link', { name: device }).first().click();
    await page.waitForURL(new RegExp(`device=${device}`));
    const columns = page.getByRole('region', { name: 'Columns' });
    await columns.getByText('Detected', { exact: true }).first().waitFor();
    const drifted = columns
      .locator('tr', { hasText: 'Detected' })
      .filter({ hasNotText: 'Not detected' })
      .first();
    await drifted.getByRole('button').click();
    await page.waitForURL(/feature=/);
    await page.getByRole('img', { name: /^Distribution of/ }).waitFor();
    await page.getByRole('img', { name: 'Accuracy' }).waitFor();
  });

  it('shows an enrolment token once', async () => {
    await signIn(page);
    await page.goto(`${home}/devices`);
    await page.getByRole('button', { name: 'Enrol device' }).click();
    const dialog = page.getByRole('dialog', { name: 'Enrol a device' });
    await dialog.getByLabel('Labels (optional)').fill('made-by=e2e');
    await dialog.getByRole('button', { name: 'Create token' }).click();
    const shown = page.getByRole('alertdialog').getByText(/^flt1\.\S{40,}$/);
    await shown.waitFor();
    await page.getByRole('button', { name: 'Done' }).click();
    await shown.waitFor({ state: 'detached' });
  });

  it('tries a rollout without changing anything', async () => {
    await signIn(page);
    await page.goto(`${home}/rollouts?new=1&model=${settings.model}&version=1.1.0`);
    const dialog = page.getByRole('dialog', { name: 'New rollout' });
    await dialog.getByRole('button', { name: 'Try it without changing anything' }).click();
    await dialog.getByText('What would happen').waitFor();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    expect(new URL(page.url()).search).toBe('');
  });

  it('records who did what', async () => {
    await signIn(page);
    await nav('Audit');
    await page
      .getByRole('button', { name: /^Show change/ })
      .first()
      .click();
    await page.getByRole('dialog').getByRole('button', { name: 'Close' }).click();
    const rows = page.getByRole('region', { name: 'Audit' });
    await rows.getByText('device.enroll').first().waitFor();
    await page.getByLabel('Action begins with').fill('rollout.');
    await page.waitForURL(/action=rollout/);
    await rows.getByText('device.enroll').first().waitFor({ state: 'detached' });
    await rows.getByText('rollout.create').first().waitFor();
  });

  it('says so when an address leads nowhere', async () => {
    await signIn(page);
    await page.goto(`${home}/devices/no-such-device`);
    await page.getByRole('alert').getByText('Not found').waitFor();
    await page.goto(`${home}/nowhere`);
    await heading('There is no such page');
  });
});
