/** What needs a person. */
import { keepPreviousData, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { client, set, take, type Schemas } from './client';

export type Alert = Schemas['Alert'];

interface AlertFilter {
  readonly isOpenOnly: boolean;
  readonly cursor?: string;
  readonly limit?: number;
}

export function useAlerts(project: string, { isOpenOnly, ...rest }: AlertFilter) {
  const query = { ...set(rest), open: isOpenOnly };
  return useQuery({
    queryKey: ['alert', project, query],
    queryFn: () =>
      take(client.GET('/api/v1/projects/{project}/alerts', { params: { path: { project }, query } })),
    placeholderData: keepPreviousData,
  });
}

export function useAcknowledge(project: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (alert: string) =>
      take(
        client.POST('/api/v1/projects/{project}/alerts/{alert}/acknowledge', {
          params: { path: { project, alert } },
        }),
      ),
    onSuccess: () => void queries.invalidateQueries({ queryKey: ['alert', project] }),
  });
}
