/** Items that devices kept for retraining, told of without their inputs: those only the command line fetches. */
import { keepPreviousData, useQueries, useQuery } from '@tanstack/react-query';
import { client, set, take, type Schemas } from './client';

export type Sample = Schemas['Sample'];
export type SampleAnswer = Schemas['SampleAnswer'];

/** From the highest worth to the lowest, as docs/CAPTURE.md lists them. */
export const STRATEGIES = [
  'contradiction',
  'disagreement',
  'out_of_reference',
  'uncertainty',
  'random',
] as const;
export type Strategy = (typeof STRATEGIES)[number];

const PAGE = 10;

interface SampleQuery {
  readonly version: string;
  readonly strategy: string;
  readonly cursor?: string;
}

function ask(project: string, model: string, query: SampleQuery, limit: number) {
  return take(
    client.GET('/api/v1/projects/{project}/models/{model}/samples', {
      params: { path: { project, model }, query: { ...set({ ...query }), limit } },
    }),
  );
}

/** Newest first. */
export function useSamples(project: string, model: string, query: SampleQuery) {
  return useQuery({
    queryKey: ['sample', project, model, query],
    queryFn: () => ask(project, model, query, PAGE),
    placeholderData: keepPreviousData,
  });
}

/** How many samples each strategy kept; undefined until the server has said so. The API counts what a filter leaves. */
export function useSampleCounts(
  project: string,
  model: string,
  version: string,
): ReadonlyMap<Strategy, number | undefined> {
  return useQueries({
    queries: STRATEGIES.map((strategy) => ({
      queryKey: ['sample', project, model, 'count', version, strategy],
      queryFn: async () => (await ask(project, model, { version, strategy }, 1)).total,
    })),
    combine: (answers) => new Map(STRATEGIES.map((strategy, index) => [strategy, answers[index]?.data])),
  });
}
