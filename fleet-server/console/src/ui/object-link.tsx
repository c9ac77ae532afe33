/** A link to whatever a row is about, where the console has a page for it. */
import { Link } from 'react-router';

interface ObjectLinkProps {
  readonly project: string;
  readonly kind: string | null | undefined;
  readonly id: string | null | undefined;
}

export function objectPath(project: string, kind: string, id: string): string | null {
  switch (kind) {
    case 'device':
      return `/p/${project}/devices/${id}`;
    case 'rollout':
      return `/p/${project}/rollouts/${id}`;
    case 'model':
      return `/p/${project}/drift/${id}`;
    case 'release': {
      const [model, version] = id.split(/[ /@]/);
      return model && version ? `/p/${project}/releases/${model}/${version}` : null;
    }
    default:
      return null;
  }
}

export function ObjectLink({ project, kind, id }: ObjectLinkProps) {
  if (!id) return <span className="muted">–</span>;
  const path = kind ? objectPath(project, kind, id) : null;
  return path ? (
    <Link to={path} className="break">
      {id}
    </Link>
  ) : (
    <span className="break">{id}</span>
  );
}
