/** Drift windows, the devices that drift now, and distributions. */
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { fromOf, type Range } from '../pages/drift/range';
import { client, set, take, type Schemas } from './client';
import type { DriftReport } from './drift-report';

export type DriftWindow = Omit<Schemas['DriftWindow'], 'report'> & { readonly report: DriftReport };
export type DriftingDevice = Schemas['DriftingDevice'];
export type Distribution = Schemas['Distribution'];

export interface DriftQuery {
  readonly model: string;
  /** Empty: all releases. */
  readonly version: string;
  /** Empty: the whole fleet. */
  readonly device: string;
  readonly range: Range;
}

/** Oldest first. */
export function useDrift(project: string, { model, version, device, range }: DriftQuery) {
  return useQuery({
    queryKey: ['drift', project, model, { version, device, range }],
    queryFn: async () => {
      const query = set({ version, device, from: fromOf(range, Date.now()) });
      const list = await take(
        client.GET('/api/v1/projects/{project}/models/{model}/drift', {
          params: { path: { project, model }, query },
        }),
      );
      // The server stores reports as the profile crate writes them.
      return list.items as unknown as DriftWindow[];
    },
    placeholderData: keepPreviousData,
  });
}

export function useDriftingDevices(project: string, model: string) {
  return useQuery({
    queryKey: ['drift', project, model, 'devices'],
    queryFn: async () =>
      (
        await take(
          client.GET('/api/v1/projects/{project}/models/{model}/drift/devices', {
            params: { path: { project, model } },
          }),
        )
      ).items,
  });
}

/** The distribution of one window: of the device that the page looks at, else of the fleet. */
export function useDistribution(project: string, model: string, window: DriftWindow, feature: string) {
  return useQuery({
    queryKey: [
      'drift',
      project,
      model,
      'distribution',
      window.version,
      window.device,
      window.from,
      window.to,
      feature,
    ],
    queryFn: () => {
      const { version, from, to } = window;
      const query = { feature, version, from, to, ...(window.device !== null && { device: window.device }) };
      return take(
        client.GET('/api/v1/projects/{project}/models/{model}/drift/distribution', {
          params: { path: { project, model }, query },
        }),
      );
    },
    staleTime: 60_000,
    placeholderData: keepPreviousData,
  });
}
