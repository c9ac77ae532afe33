/** Models and their releases. */
import { useQuery } from '@tanstack/react-query';
import { client, take, type Schemas } from './client';
import type { Manifest } from './manifest';

export type Model = Schemas['Model'];
export type Release = Schemas['ReleaseSummary'];
export type Signature = Schemas['Signature'];
export type Measurement = Schemas['MeasurementBody'];
export type ReleaseDetail = Omit<Schemas['ReleaseDetail'], 'manifest'> & { readonly manifest: Manifest };

export function useModels(project: string) {
  return useQuery({
    queryKey: ['release', project, 'models'],
    queryFn: async () =>
      (await take(client.GET('/api/v1/projects/{project}/models', { params: { path: { project } } }))).items,
  });
}

/** Highest counter first. */
export function useReleases(project: string, model: string) {
  return useQuery({
    queryKey: ['release', project, 'of', model],
    queryFn: async () =>
      (
        await take(
          client.GET('/api/v1/projects/{project}/models/{model}/releases', {
            params: { path: { project, model } },
          }),
        )
      ).items,
    enabled: model !== '',
  });
}

export function useRelease(project: string, model: string, version: string) {
  return useQuery({
    queryKey: ['release', project, 'of', model, version],
    queryFn: async () => {
      const path = { project, model, version };
      const detail = await take(
        client.GET('/api/v1/projects/{project}/models/{model}/releases/{version}', { params: { path } }),
      );
      // The server stores only manifests that the release crate could read.
      return detail as unknown as ReleaseDetail;
    },
  });
}

/** What devices measured of it on request. */
export function useMeasurements(project: string, model: string, version: string) {
  return useQuery({
    queryKey: ['release', project, 'of', model, version, 'measurements'],
    queryFn: async () =>
      (
        await take(
          client.GET('/api/v1/projects/{project}/models/{model}/releases/{version}/measurements', {
            params: { path: { project, model, version } },
          }),
        )
      ).items,
  });
}
