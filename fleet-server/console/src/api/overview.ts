/** The fleet at a glance. */
import { useQuery } from '@tanstack/react-query';
import { client, take, type Schemas } from './client';

export type ModelMix = Schemas['ModelMix'];

export function useOverview(project: string) {
  return useQuery({
    queryKey: ['overview', project],
    queryFn: () => take(client.GET('/api/v1/projects/{project}/overview', { params: { path: { project } } })),
  });
}
