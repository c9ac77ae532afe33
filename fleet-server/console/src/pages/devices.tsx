/** All devices: filtered, searched and sorted by the address bar, paged by cursor. */
import { useRef, useState } from 'react';
import { Link, useParams } from 'react-router';
import { useDevices, type DeviceRow } from '../api/devices';
import { useModels, useReleases } from '../api/releases';
import { useCan } from '../api/session';
import { NONE } from '../i18n/format';
import { useI18n } from '../i18n/i18n';
import { Badge } from '../ui/badge';
import { Button } from '../ui/button';
import { SearchField, Select, TextField } from '../ui/field';
import { LabelTags } from '../ui/labels';
import { Filters, Page } from '../ui/page';
import { Pager } from '../ui/pager';
import { Empty } from '../ui/states';
import { Table, type Column } from '../ui/table';
import { RelativeTime } from '../ui/time';
import { toneOf, wordOf } from '../ui/tones';
import { pageLimit, sortingOf, unsortedNote, useUrlState } from '../ui/url-state';
import { useOpen } from '../ui/use-open';
import { EnrolDialog } from './device/enrol';
import { EnrolmentTokens } from './device/tokens';

/** One question per pause in typing, not per key. */
const TYPING_PAUSE_MS = 250;

export function ConnectionBadge({ device }: { readonly device: Pick<DeviceRow, 'is_online' | 'last_seen'> }) {
  const { t } = useI18n();
  if (device.is_online) return <Badge tone="ok">{t('device.online')}</Badge>;
  return <Badge tone="idle">{t(device.last_seen ? 'device.offline' : 'device.never')}</Badge>;
}

function useColumns(project: string): readonly Column<DeviceRow>[] {
  const { t } = useI18n();
  return [
    {
      id: 'device',
      header: t('device.name'),
      cell: (row) => (
        <Link className="row-link break" to={`/p/${project}/devices/${row.device}`}>
          {row.device}
        </Link>
      ),
      isWide: true,
      sort: (a, b) => a.device.localeCompare(b.device),
    },
    {
      id: 'online',
      header: t('device.connection'),
      cell: (row) => <ConnectionBadge device={row} />,
      sort: (a, b) => Number(a.is_online) - Number(b.is_online),
    },
    {
      id: 'release',
      header: t('device.release'),
      cell: (row) => (
        <span className="stack-tight">
          {row.models.map((each) => (
            <span key={each.model} className="nowrap">
              {each.model} <span className="strong num">{each.active?.version ?? '–'}</span>
            </span>
          ))}
        </span>
      ),
      sort: (a, b) => (a.models[0]?.active?.version ?? '').localeCompare(b.models[0]?.active?.version ?? ''),
    },
    {
      id: 'phase',
      header: t('device.phase'),
      cell: (row) => (
        <span className="row">
          {row.models.map((each) =>
            each.absent === null ? (
              <Badge key={each.model} tone={toneOf(each.phase)}>
                {wordOf(t, 'phase', each.phase)}
              </Badge>
            ) : (
              <Badge key={each.model} tone="bad">
                {t('device.notLoaded')}
              </Badge>
            ),
          )}
        </span>
      ),
    },
    {
      id: 'labels',
      header: t('device.labels'),
      cell: (row) => <LabelTags labels={row.labels} />,
      isSecondary: true,
    },
    {
      id: 'class',
      header: t('device.class'),
      cell: (row) => row.hardware_class ?? NONE,
      isSecondary: true,
      sort: (a, b) => (a.hardware_class ?? '').localeCompare(b.hardware_class ?? ''),
    },
    {
      id: 'agent',
      header: t('device.agent'),
      cell: (row) => <span className="num">{row.agent_version ?? NONE}</span>,
      isSecondary: true,
      sort: (a, b) => (a.agent_version ?? '').localeCompare(b.agent_version ?? ''),
    },
    {
      id: 'problems',
      header: t('device.problems'),
      cell: (row) =>
        row.problems.length > 0 ? (
          <Badge tone="warn">{row.problems.length}</Badge>
        ) : (
          <span className="muted">–</span>
        ),
      sort: (a, b) => a.problems.length - b.problems.length,
    },
    {
      id: 'seen',
      header: t('device.lastSeen'),
      cell: (row) => <RelativeTime at={row.last_seen} />,
      sort: (a, b) => String(a.last_seen).localeCompare(String(b.last_seen)),
    },
  ];
}

function DeviceFilters({ project }: { readonly project: string }) {
  const { t } = useI18n();
  const url = useUrlState();
  const models = useModels(project);
  const model = url.get('model');
  const releases = useReleases(project, model);
  const [query, setQuery] = useState(url.get('q'));
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const search = (q: string) => {
    setQuery(q);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => url.set({ q }), TYPING_PAUSE_MS);
  };

  const any = { id: '', label: t('field.any') };
  return (
    <Filters>
      <SearchField label={t('devices.search')} value={query} onChange={search} />
      <Select
        label={t('devices.online')}
        options={[
          any,
          { id: 'true', label: t('device.online') },
          { id: 'false', label: t('device.offline') },
        ]}
        value={url.get('online')}
        onChange={(online) => url.set({ online })}
      />
      <Select
        label={t('devices.model')}
        options={[any, ...(models.data ?? []).map((each) => ({ id: each.model, label: each.model }))]}
        value={model}
        onChange={(next) => url.set({ model: next, version: null })}
      />
      <Select
        label={t('devices.version')}
        options={[any, ...(releases.data ?? []).map((each) => ({ id: each.version, label: each.version }))]}
        value={url.get('version')}
        onChange={(version) => url.set({ version })}
        isDisabled={model === ''}
      />
      <TextField
        label={t('devices.label')}
        value={url.get('label')}
        onChange={(label) => url.set({ label })}
      />
    </Filters>
  );
}

export default function DevicesPage() {
  const { t } = useI18n();
  const { project = '' } = useParams();
  const url = useUrlState();
  const can = useCan(project);
  const enrol = useOpen();
  const columns = useColumns(project);
  const label = url.get('label');
  const devices = useDevices(project, {
    q: url.get('q'),
    online: url.get('online'),
    // Half-written labels are not asked for.
    label: /^[^:]+:.+$/.test(label) ? label : '',
    model: url.get('model'),
    version: url.get('version'),
    cursor: url.get('cursor'),
    ...pageLimit(url.get('sort')),
  });
  const sorting = sortingOf(url, devices.data);
  const isFiltered = ['q', 'online', 'label', 'model', 'version'].some((name) => url.get(name) !== '');
  const enrolButton = can('operator') && (
    <Button look="primary" onPress={enrol.open}>
      {t('devices.enrol')}
    </Button>
  );
  return (
    <Page title={t('devices.title')} actions={enrolButton}>
      <DeviceFilters project={project} />
      <Table
        caption={t('devices.title')}
        hasCards
        columns={columns}
        rows={devices.data?.items}
        rowKey={(row) => row.device}
        error={devices.error}
        onRetry={() => void devices.refetch()}
        sort={sorting.sort}
        onSort={sorting.onSort}
        skeletonRows={8}
        empty={
          isFiltered ? (
            <Empty title={t('devices.noMatch')} action={<Link to="?">{t('filters.clear')}</Link>} />
          ) : (
            <Empty title={t('devices.none')} hint={t('devices.noneHint')} />
          )
        }
      />
      {devices.data && (
        <Pager
          shown={devices.data.items.length}
          total={devices.data.total}
          isFirst={url.get('cursor') === ''}
          nextCursor={devices.data.next_cursor}
          onCursor={(cursor) => url.set({ cursor })}
          note={unsortedNote(t, sorting)}
        />
      )}
      {can('operator') && <EnrolmentTokens project={project} />}
      {enrol.isOpen && <EnrolDialog project={project} onClose={enrol.close} />}
    </Page>
  );
}
