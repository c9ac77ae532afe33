/** What needs a person, newest first. */
import { useParams } from 'react-router';
import { useAcknowledge, useAlerts, type Alert } from '../api/alerts';
import { useCan } from '../api/session';
import { useI18n } from '../i18n/i18n';
import { useServerText } from '../i18n/server-sentences';
import { Badge } from '../ui/badge';
import { Button } from '../ui/button';
import { Select } from '../ui/field';
import { ObjectLink } from '../ui/object-link';
import { Filters, Page } from '../ui/page';
import { Pager } from '../ui/pager';
import { Empty, ErrorText, Notice } from '../ui/states';
import { Table, type Column } from '../ui/table';
import { RelativeTime } from '../ui/time';
import { toneOf, wordOf } from '../ui/tones';
import { useUrlState } from '../ui/url-state';

function AlertState({ alert }: { readonly alert: Alert }) {
  const { t } = useI18n();
  if (alert.closed_at) return <Badge tone="ok">{t('alerts.closed')}</Badge>;
  if (alert.acknowledged_at) return <Badge tone="info">{t('alerts.acknowledged')}</Badge>;
  return <Badge tone="warn">{t('alerts.open')}</Badge>;
}

function AlertLinks({ project, alert }: { readonly project: string; readonly alert: Alert }) {
  const about = [
    ['rollout', alert.rollout],
    ['device', alert.device],
    ['model', alert.model],
  ] as const;
  return (
    <span className="row">
      {about.map(
        ([kind, id]) => id !== null && <ObjectLink key={kind} project={project} kind={kind} id={id} />,
      )}
    </span>
  );
}

export default function AlertsPage() {
  const { t } = useI18n();
  const server = useServerText();
  const { project = '' } = useParams();
  const url = useUrlState();
  const can = useCan(project);
  const isOpenOnly = url.get('show') !== 'all';
  const alerts = useAlerts(project, { isOpenOnly, cursor: url.get('cursor') });
  const acknowledge = useAcknowledge(project);
  const columns: readonly Column<Alert>[] = [
    {
      id: 'severity',
      header: t('alerts.severity'),
      cell: (row) => <Badge tone={toneOf(row.severity)}>{wordOf(t, 'severity', row.severity)}</Badge>,
    },
    {
      id: 'what',
      header: t('alerts.what'),
      cell: (row) => <span className="break">{server.sentence(row.message)}</span>,
      isWide: true,
    },
    {
      id: 'about',
      header: t('alerts.about'),
      cell: (row) => <AlertLinks project={project} alert={row} />,
      isWide: true,
    },
    { id: 'opened', header: t('alerts.opened'), cell: (row) => <RelativeTime at={row.opened_at} /> },
    { id: 'state', header: t('alerts.state'), cell: (row) => <AlertState alert={row} /> },
    {
      id: 'acknowledge',
      header: <span className="visually-hidden">{t('action.acknowledge')}</span>,
      align: 'end',
      cell: (row) =>
        can('operator') && !row.acknowledged_at && !row.closed_at ? (
          <Button
            size="small"
            aria-label={`${t('action.acknowledge')}: ${server.sentence(row.message)}`}
            isPending={acknowledge.isPending && acknowledge.variables === row.id}
            onPress={() => acknowledge.mutate(row.id)}
          >
            {t('action.acknowledge')}
          </Button>
        ) : null,
    },
  ];
  return (
    <Page title={t('alerts.title')}>
      <Filters>
        <Select
          label={t('alerts.show')}
          options={[
            { id: 'open', label: t('alerts.showOpen') },
            { id: 'all', label: t('alerts.showAll') },
          ]}
          value={isOpenOnly ? 'open' : 'all'}
          onChange={(show) => url.set({ show: show === 'all' ? 'all' : null })}
        />
      </Filters>
      {acknowledge.error && (
        <Notice tone="bad">
          <ErrorText error={acknowledge.error} />
        </Notice>
      )}
      <Table
        caption={t('alerts.title')}
        hasCards
        columns={columns}
        rows={alerts.data?.items}
        rowKey={(row) => row.id}
        error={alerts.error}
        onRetry={() => void alerts.refetch()}
        empty={<Empty title={t('alerts.none')} hint={t('alerts.noneHint')} />}
      />
      {alerts.data && (
        <Pager
          shown={alerts.data.items.length}
          total={alerts.data.total}
          isFirst={url.get('cursor') === ''}
          nextCursor={alerts.data.next_cursor}
          onCursor={(cursor) => url.set({ cursor })}
        />
      )}
    </Page>
  );
}
