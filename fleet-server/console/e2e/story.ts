/** Where the demo's story is to be seen. Ids are asked from the server, as they differ with each run. */
import type { Page } from 'playwright-core';
import { settings } from './browser';

interface Rollout {
  readonly rollout: string;
  readonly state: string;
}

/** The API as the signed-in person, from outside the page. */
export async function api<T>(page: Page, path: string): Promise<T> {
  const response = await page.request.get(`${settings.url}/api/v1/projects/${settings.project}${path}`);
  if (!response.ok()) throw new Error(`${path}: ${response.status()} ${await response.text()}`);
  return (await response.json()) as T;
}

export async function rolloutIn(page: Page, state: string): Promise<string> {
  const { items } = await api<{ items: readonly Rollout[] }>(page, '/rollouts');
  const found = items.find((each) => each.state === state);
  if (!found) throw new Error(`no rollout is ${state}: ${items.map((each) => each.state).join(', ')}`);
  return found.rollout;
}

export async function driftingDevice(page: Page): Promise<string> {
  const { items } = await api<{ items: readonly { device: string }[] }>(
    page,
    `/models/${settings.model}/drift/devices`,
  );
  const found = items[0];
  if (!found) throw new Error('no device drifts');
  return found.device;
}

/** Title to path below the project. */
export async function story(page: Page): Promise<Record<string, string>> {
  const failed = await rolloutIn(page, 'rolled_back');
  const drifting = await driftingDevice(page);
  return {
    overview: 'overview',
    devices: 'devices',
    device: `devices/${drifting}`,
    releases: 'releases',
    release: `releases/${settings.model}/1.1.0`,
    rollouts: 'rollouts',
    rollout: `rollouts/${failed}`,
    'rollout-new': 'rollouts?new=1',
    drift: `drift/${settings.model}?device=${drifting}&feature=contrast`,
    alerts: 'alerts',
    audit: 'audit',
    settings: 'settings',
  };
}
