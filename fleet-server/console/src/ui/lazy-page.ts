/**
 * A page in a file of its own. When the file can't be fetched the server is away, or a newer one took its place and its
 * files have other names: as soon as a server answers, the whole page is loaded anew.
 */
import { serverAnswers } from '../api/client';
import { lazy, type ComponentType, type LazyExoticComponent } from 'react';

const WAIT_MS = 2_000;
/** A file that is still missing this soon after such a reload is a fault, not an upgrade. */
const FRESH_MS = 20_000;
const RELOADED_AT = 'flotilla.reloadedAt';

type Page = ComponentType<object>;

async function reloadWhenThere(error: unknown): Promise<never> {
  if (Date.now() - Number(sessionStorage.getItem(RELOADED_AT) ?? 0) < FRESH_MS) throw error;
  while (!(await serverAnswers())) {
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  }
  sessionStorage.setItem(RELOADED_AT, String(Date.now()));
  window.location.reload();
  // The page is on its way out; until then the skeleton stays.
  return new Promise<never>(() => undefined);
}

export function lazyPage(load: () => Promise<{ default: Page }>): LazyExoticComponent<Page> {
  return lazy(() => load().catch(reloadWhenThere));
}
