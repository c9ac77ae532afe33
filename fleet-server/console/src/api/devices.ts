/** Devices: the list, one device with its history, and what can be done to it. */
import { keepPreviousData, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { client, set, take, type Schemas } from './client';

export type DeviceRow = Schemas['DeviceSummary'];
export type DeviceDetail = Schemas['DeviceDetail'];
export type ModelState = Schemas['DeviceModel'];
export type ReleaseName = Schemas['ReleaseName'];
export type Reading = Schemas['ResourceReading'];
export type DeviceTask = Schemas['TaskTransition'];
export type DeviceEvent = Schemas['DeviceEvent'];
export type Labels = Readonly<Record<string, string>>;
/** Labels to be set, and with `null` to be removed. */
export type LabelChanges = Readonly<Record<string, string | null>>;

export interface DeviceFilter {
  readonly q?: string;
  readonly online?: string;
  readonly label?: string;
  readonly model?: string;
  readonly version?: string;
  readonly cursor?: string;
  readonly limit?: number;
}

export function useDevices(project: string, filter: DeviceFilter) {
  const { online = '', ...rest } = filter;
  const query = { ...set(rest), ...(online !== '' && { online: online === 'true' }) };
  return useQuery({
    queryKey: ['device', project, 'list', query],
    queryFn: () =>
      take(client.GET('/api/v1/projects/{project}/devices', { params: { path: { project }, query } })),
    placeholderData: keepPreviousData,
  });
}

export function useDevice(project: string, device: string) {
  return useQuery({
    queryKey: ['device', project, device],
    queryFn: () =>
      take(
        client.GET('/api/v1/projects/{project}/devices/{device}', { params: { path: { project, device } } }),
      ),
  });
}

export function useWhy(project: string, device: string, model: string) {
  return useQuery({
    queryKey: ['device', project, device, 'why', model],
    queryFn: () =>
      take(
        client.GET('/api/v1/projects/{project}/devices/{device}/why', {
          params: { path: { project, device }, query: { model } },
        }),
      ),
  });
}

export function useDeviceTasks(project: string, device: string) {
  return useQuery({
    queryKey: ['device', project, device, 'tasks'],
    queryFn: () =>
      take(
        client.GET('/api/v1/projects/{project}/devices/{device}/tasks', {
          params: { path: { project, device }, query: { limit: 50 } },
        }),
      ),
  });
}

export function useDeviceEvents(project: string, device: string) {
  return useQuery({
    queryKey: ['device', project, device, 'events'],
    queryFn: () =>
      take(
        client.GET('/api/v1/projects/{project}/devices/{device}/events', {
          params: { path: { project, device }, query: { limit: 50 } },
        }),
      ),
  });
}

/** How often a page looks whether lines that were asked for have come. */
const LOGS_EVERY_MS = 5000;

export function useDeviceLogs(project: string, device: string) {
  return useQuery({
    queryKey: ['device', project, device, 'logs'],
    queryFn: () =>
      take(
        client.GET('/api/v1/projects/{project}/devices/{device}/logs', {
          params: { path: { project, device }, query: { limit: 1 } },
        }),
      ),
    refetchInterval: LOGS_EVERY_MS,
  });
}

export function useDeviceResources(project: string, device: string) {
  return useQuery({
    queryKey: ['device', project, device, 'resources'],
    queryFn: async () =>
      (
        await take(
          client.GET('/api/v1/projects/{project}/devices/{device}/resources', {
            params: { path: { project, device } },
          }),
        )
      ).items,
  });
}

export type Command = Schemas['NewCommand'];

export function useDeviceCommand(project: string, device: string) {
  return useMutation({
    mutationFn: (body: Command) =>
      take(
        client.POST('/api/v1/projects/{project}/devices/{device}/commands', {
          params: { path: { project, device } },
          body,
        }),
      ),
  });
}

function useDeviceChange<Variables, Result>(
  project: string,
  mutationFn: (variables: Variables) => Promise<Result>,
) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn,
    onSuccess: () => void queries.invalidateQueries({ queryKey: ['device', project] }),
  });
}

export function useChangeLabels(project: string, device: string) {
  return useDeviceChange(project, (labels: LabelChanges) =>
    take(
      client.PATCH('/api/v1/projects/{project}/devices/{device}', {
        params: { path: { project, device } },
        body: { labels },
      }),
    ),
  );
}

export function useDecommission(project: string, device: string) {
  return useDeviceChange(project, () =>
    take(
      client.DELETE('/api/v1/projects/{project}/devices/{device}', { params: { path: { project, device } } }),
    ),
  );
}
