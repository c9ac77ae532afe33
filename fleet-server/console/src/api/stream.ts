/** Live changes: the server names what changed, the console asks for it again. Without the stream, it polls. */
import { useQueryClient, type QueryClient } from '@tanstack/react-query';
import { useEffect, useSyncExternalStore } from 'react';

/** Every query key begins with the kind of thing that it holds and the project: `['device', project, ...]`. */
export const KINDS = ['device', 'rollout', 'alert', 'release'] as const;
export type Kind = (typeof KINDS)[number];

/** Views that are made of several kinds and are asked for again with each of them. */
const ALSO: Readonly<Record<Kind, readonly string[]>> = {
  device: ['overview', 'drift'],
  rollout: ['overview', 'device'],
  alert: ['overview'],
  release: ['overview'],
};

const POLL_MS = 5_000;
/** Changes come in bursts; one burst is one question. */
const GATHER_MS = 400;

let isLive = false;
const listeners = new Set<() => void>();

function setLive(live: boolean): void {
  if (isLive === live) return;
  isLive = live;
  listeners.forEach((notify) => notify());
}

function subscribe(notify: () => void): () => void {
  listeners.add(notify);
  return () => listeners.delete(notify);
}

function invalidator(
  queries: QueryClient,
  project: string,
): { mark: (kind: Kind) => void; stop: () => void } {
  const waiting = new Set<string>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = () => {
    timer = undefined;
    for (const name of waiting) void queries.invalidateQueries({ queryKey: [name, project] });
    waiting.clear();
  };
  return {
    mark: (kind) => {
      for (const name of [kind, ...ALSO[kind]]) waiting.add(name);
      timer ??= setTimeout(flush, GATHER_MS);
    },
    stop: () => clearTimeout(timer),
  };
}

/** Keeps one stream open for the project. Whether it stands. */
export function useLive(project: string): boolean {
  const queries = useQueryClient();
  useEffect(() => {
    const { mark, stop } = invalidator(queries, project);
    const source = new EventSource(`/api/v1/projects/${encodeURIComponent(project)}/stream`);
    source.onopen = () => {
      setLive(true);
      KINDS.forEach(mark); // Whatever changed while the stream was down.
    };
    source.onerror = () => setLive(false); // The browser reconnects by itself.
    source.addEventListener('missed', () => KINDS.forEach(mark));
    for (const kind of KINDS) source.addEventListener(kind, () => mark(kind));
    const poll = setInterval(() => {
      if (source.readyState !== EventSource.OPEN) KINDS.forEach(mark);
    }, POLL_MS);
    return () => {
      source.close();
      clearInterval(poll);
      stop();
      setLive(false);
    };
  }, [project, queries]);
  return useSyncExternalStore(subscribe, () => isLive);
}
