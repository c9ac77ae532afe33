/** All rollouts, newest first. */
import { Link, useParams } from 'react-router';
import { useRollouts, type RolloutRow } from '../api/rollouts';
import { useCan } from '../api/session';
import { StackBar } from '../charts/stack-bar';
import { useI18n } from '../i18n/i18n';
import { Badge } from '../ui/badge';
import { Button } from '../ui/button';
import { Select } from '../ui/field';
import { Filters, Page } from '../ui/page';
import { Pager } from '../ui/pager';
import { Empty } from '../ui/states';
import { Table, type Column } from '../ui/table';
import { RelativeTime } from '../ui/time';
import { toneOf, wordOf } from '../ui/tones';
import { useUrlState } from '../ui/url-state';
import { CreateRolloutDialog } from './rollout/create';
import { phaseParts } from './rollout/phases';

const STATES = [
  'running',
  'paused',
  'scheduled',
  'awaiting_approval',
  'rolling_back',
  'completed',
  'rolled_back',
  'aborted',
];

interface RolloutTableProps {
  readonly project: string;
  readonly limit?: number;
  readonly state?: string;
  readonly model?: string;
  readonly cursor?: string;
  readonly onCursor?: (cursor: string | null) => void;
}

export function RolloutTable({
  project,
  limit,
  state = '',
  model = '',
  cursor = '',
  onCursor,
}: RolloutTableProps) {
  const { t } = useI18n();
  const rollouts = useRollouts(project, { state, model, cursor, ...(limit !== undefined && { limit }) });
  const columns: readonly Column<RolloutRow>[] = [
    {
      id: 'release',
      header: t('rollouts.release'),
      cell: (row) => (
        <Link className="row-link nowrap" to={`/p/${project}/rollouts/${row.rollout}`}>
          {row.model} {row.release.version}
        </Link>
      ),
    },
    {
      id: 'state',
      header: t('rollouts.state'),
      cell: (row) => <Badge tone={toneOf(row.state)}>{wordOf(t, 'rolloutState', row.state)}</Badge>,
    },
    {
      id: 'progress',
      header: t('rollouts.progress'),
      cell: (row) => (
        <span className="progress-cell">
          <StackBar parts={phaseParts(t, row.tasks)} isLegendHidden />
          <span className="small muted num nowrap">
            {t('rollouts.committed', { done: row.tasks.committed ?? 0, total: sum(row.tasks) })}
          </span>
        </span>
      ),
      isSecondary: true,
    },
    { id: 'by', header: t('rollouts.by'), cell: (row) => row.created_by, isSecondary: true },
    { id: 'created', header: t('rollouts.created'), cell: (row) => <RelativeTime at={row.created_at} /> },
    {
      id: 'changed',
      header: t('rollouts.changed'),
      cell: (row) => <RelativeTime at={row.updated_at} />,
      isSecondary: true,
    },
  ];
  return (
    <>
      <Table
        caption={t('rollouts.title')}
        columns={columns}
        rows={rollouts.data?.items}
        rowKey={(row) => row.rollout}
        error={rollouts.error}
        onRetry={() => void rollouts.refetch()}
        skeletonRows={3}
        empty={<Empty title={t('rollouts.none')} hint={t('rollouts.noneHint')} />}
      />
      {onCursor && rollouts.data && (
        <Pager
          shown={rollouts.data.items.length}
          total={rollouts.data.total}
          isFirst={cursor === ''}
          nextCursor={rollouts.data.next_cursor}
          onCursor={onCursor}
        />
      )}
    </>
  );
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

export default function RolloutsPage() {
  const { t } = useI18n();
  const { project = '' } = useParams();
  const url = useUrlState();
  const can = useCan(project);
  const isCreating = url.get('new') !== '';
  return (
    <Page
      title={t('rollouts.title')}
      actions={
        can('operator') && (
          <Button look="primary" onPress={() => url.set({ new: '1' })}>
            {t('rollouts.new')}
          </Button>
        )
      }
    >
      <Filters>
        <Select
          label={t('rollouts.state')}
          options={[
            { id: '', label: t('field.all') },
            ...STATES.map((id) => ({ id, label: wordOf(t, 'rolloutState', id) })),
          ]}
          value={url.get('state')}
          onChange={(state) => url.set({ state })}
        />
      </Filters>
      <RolloutTable
        project={project}
        state={url.get('state')}
        model={isCreating ? '' : url.get('model')}
        cursor={url.get('cursor')}
        onCursor={(cursor) => url.set({ cursor })}
      />
      {isCreating && (
        <CreateRolloutDialog
          project={project}
          model={url.get('model')}
          version={url.get('version')}
          onClose={() => url.set({ new: null, model: null, version: null })}
        />
      )}
    </Page>
  );
}
