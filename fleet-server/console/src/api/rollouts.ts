/** Rollouts: list, one with its stages and gates, its tasks and journal, and the verbs. */
import { keepPreviousData, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { client, set, take, type Schemas } from './client';
import type { NewRollout } from './plan';

export type RolloutRow = Schemas['RolloutSummary'];
export type Gate = Schemas['RolloutGate'];
export type Stage = Schemas['RolloutStage'];
export type RolloutDetail = Schemas['RolloutDetail'];
export type RolloutTask = Schemas['RolloutTask'];
export type JournalEntry = Schemas['JournalEntry'];
export type DryRun = Schemas['DryRun'];

export const VERBS = ['approve', 'deny', 'pause', 'resume', 'retry', 'rollback', 'abort'] as const;
export type Verb = (typeof VERBS)[number];

interface RolloutFilter {
  readonly state?: string;
  readonly model?: string;
  readonly cursor?: string;
  readonly limit?: number;
}

export function useRollouts(project: string, filter: RolloutFilter) {
  const query = set({ ...filter });
  return useQuery({
    queryKey: ['rollout', project, 'list', query],
    queryFn: () =>
      take(client.GET('/api/v1/projects/{project}/rollouts', { params: { path: { project }, query } })),
    placeholderData: keepPreviousData,
  });
}

export function useRollout(project: string, rollout: string) {
  return useQuery({
    queryKey: ['rollout', project, rollout],
    queryFn: () =>
      take(
        client.GET('/api/v1/projects/{project}/rollouts/{rollout}', {
          params: { path: { project, rollout } },
        }),
      ),
  });
}

interface TaskPage {
  readonly cursor: string;
  readonly limit?: number;
}

export function useRolloutTasks(project: string, rollout: string, page: TaskPage) {
  return useQuery({
    queryKey: ['rollout', project, rollout, 'tasks', page],
    queryFn: () =>
      take(
        client.GET('/api/v1/projects/{project}/rollouts/{rollout}/tasks', {
          params: { path: { project, rollout }, query: set({ ...page }) },
        }),
      ),
    placeholderData: keepPreviousData,
  });
}

export function useRolloutJournal(project: string, rollout: string, cursor: string) {
  return useQuery({
    queryKey: ['rollout', project, rollout, 'journal', cursor],
    queryFn: () =>
      take(
        client.GET('/api/v1/projects/{project}/rollouts/{rollout}/journal', {
          params: { path: { project, rollout }, query: set({ cursor, limit: 500 }) },
        }),
      ),
    placeholderData: keepPreviousData,
  });
}

export function useRolloutVerb(project: string, rollout: string) {
  const queries = useQueryClient();
  const params = { path: { project, rollout } };
  const body = {};
  return useMutation<unknown, Error, Verb>({
    mutationFn: (verb) => {
      switch (verb) {
        case 'approve':
          return take(client.POST('/api/v1/projects/{project}/rollouts/{rollout}/approve', { params, body }));
        case 'deny':
          return take(client.POST('/api/v1/projects/{project}/rollouts/{rollout}/deny', { params, body }));
        case 'pause':
          return take(client.POST('/api/v1/projects/{project}/rollouts/{rollout}/pause', { params, body }));
        case 'resume':
          return take(client.POST('/api/v1/projects/{project}/rollouts/{rollout}/resume', { params, body }));
        case 'retry':
          return take(
            client.POST('/api/v1/projects/{project}/rollouts/{rollout}/resume', {
              params,
              body: { retry_failed: true },
            }),
          );
        case 'rollback':
          return take(
            client.POST('/api/v1/projects/{project}/rollouts/{rollout}/rollback', { params, body }),
          );
        case 'abort':
          return take(client.POST('/api/v1/projects/{project}/rollouts/{rollout}/abort', { params, body }));
      }
    },
    onSuccess: () => void queries.invalidateQueries({ queryKey: ['rollout', project] }),
  });
}

export function useCreateRollout(project: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: async (plan: NewRollout) => {
      const made = await take(
        client.POST('/api/v1/projects/{project}/rollouts', {
          params: { path: { project } },
          body: plan,
        }),
      );
      return made.rollout;
    },
    onSuccess: () => void queries.invalidateQueries({ queryKey: ['rollout', project] }),
  });
}

export function useDryRun(project: string) {
  return useMutation({
    mutationFn: (plan: NewRollout) =>
      take(
        client.POST('/api/v1/projects/{project}/rollouts/dry-run', {
          params: { path: { project } },
          body: plan,
        }),
      ),
  });
}
