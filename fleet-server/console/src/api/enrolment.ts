/** One-time enrolment tokens. */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { client, take, type Schemas } from './client';
import type { Labels } from './devices';

export type EnrolmentToken = Schemas['EnrollmentToken'];

/** A device that enrols changes its token, so these live and refresh with the devices. */
const key = (project: string) => ['device', project, 'enrolment-tokens'] as const;

export function useEnrolmentTokens(project: string) {
  return useQuery({
    queryKey: key(project),
    queryFn: async () =>
      (
        await take(
          client.GET('/api/v1/projects/{project}/enrollment-tokens', { params: { path: { project } } }),
        )
      ).items,
  });
}

interface NewToken {
  readonly device: string;
  readonly labels: Labels;
  readonly lifetimeS: number;
}

export function useCreateEnrolmentToken(project: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ device, labels, lifetimeS }: NewToken) =>
      take(
        client.POST('/api/v1/projects/{project}/enrollment-tokens', {
          params: { path: { project } },
          body: { labels, validity_s: lifetimeS, ...(device !== '' && { device }) },
        }),
      ),
    onSuccess: () => void queries.invalidateQueries({ queryKey: key(project) }),
  });
}

export function useRevokeEnrolmentToken(project: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) =>
      take(
        client.DELETE('/api/v1/projects/{project}/enrollment-tokens/{id}', {
          params: { path: { project, id } },
        }),
      ),
    onSuccess: () => void queries.invalidateQueries({ queryKey: key(project) }),
  });
}
