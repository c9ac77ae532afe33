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

function listen(project: string, mark: (kind: Kind) => void): EventSource {
  const source = new EventSource(`/api/v1/projects/${encodeURIComponent(project)}/stream`);
  const markAll = () => KINDS.forEach(mark);
  source.onopen = () => {
    setLive(true);
    markAll(); // Whatever changed while the stream was down.
  };
  source.onerror = () => setLive(false); // The browser reconnects by itself.
  source.addEventListener('missed', markAll);
  for (const kind of KINDS) source.addEventListener(kind, () => mark(kind));
  return source;
}

/** Keeps one stream open for the project while the tab is looked at. Whether it stands. */
export function useLive(project: string): boolean {
  const queries = useQueryClient();
  useEffect(() => {
    const { mark, stop } = invalidator(queries, project);
    let source: EventSource | undefined;
    const close = () => {
      source?.close();
      source = undefined;
      setLive(false);
    };
    // A browser opens six connections to a server in all: a tab that nobody looks at must not keep one.
    const follow = () => {
      close();
      if (!document.hidden) source = listen(project, mark);
    };
    follow();
    document.addEventListener('visibilitychange', follow);
    const poll = setInterval(() => {
      if (!source || source.readyState === EventSource.OPEN) return;
      KINDS.forEach(mark);
      // After an answer that is no stream, such as 503, the browser doesn't try again by itself.
      if (source.readyState === EventSource.CLOSED) follow();
    }, POLL_MS);
    return () => {
      document.removeEventListener('visibilitychange', follow);
      clearInterval(poll);
      stop();
      close();
    };
  }, [project, queries]);
  return useSyncExternalStore(subscribe, () => isLive);
}
