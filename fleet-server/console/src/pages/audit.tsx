/** Who changed what when, with the values before and after. */
import { useState } from 'react';
import { Link, useParams } from 'react-router';
import { sinceOf, useAudit, type AuditRow } from '../api/audit';
import { useIsAdmin } from '../api/session';
import { useI18n } from '../i18n/i18n';
import { Button } from '../ui/button';
import { Dialog, DialogBody } from '../ui/dialog';
import { Select, TextField } from '../ui/field';
import { ObjectLink } from '../ui/object-link';
import { Filters, Page } from '../ui/page';
import { Pager } from '../ui/pager';
import { Empty } from '../ui/states';
import { Table, type Column } from '../ui/table';
import { AbsoluteTime, RelativeTime } from '../ui/time';
import { useTyped, useUrlState } from '../ui/url-state';

function Json({ title, value }: { readonly title: string; readonly value: unknown }) {
  if (value === null || value === undefined) return null;
  return (
    <div className="stack">
      <h3>{title}</h3>
      <pre className="json" role="region" aria-label={title} tabIndex={0}>
        {JSON.stringify(value, null, 2)}
      </pre>
    </div>
  );
}

function AuditFilters({ isAdmin, isServer }: { readonly isAdmin: boolean; readonly isServer: boolean }) {
  const { t } = useI18n();
  const url = useUrlState();
  const [actor, typeActor] = useTyped(url, 'actor');
  const [action, typeAction] = useTyped(url, 'action');
  const [object, typeObject] = useTyped(url, 'object');
  return (
    <Filters>
      {isAdmin && (
        <Select
          label={t('audit.where')}
          options={[
            { id: '', label: t('audit.thisProject') },
            { id: 'server', label: t('audit.wholeServer') },
          ]}
          value={isServer ? 'server' : ''}
          onChange={(where) => url.set({ where, cursor: null })}
        />
      )}
      <TextField label={t('audit.actorIs')} value={actor} onChange={typeActor} />
      <TextField label={t('audit.actionBegins')} value={action} onChange={typeAction} />
      <TextField label={t('audit.objectIs')} value={object} onChange={typeObject} />
      <TextField
        label={t('audit.since')}
        type="date"
        value={url.get('since')}
        onChange={(since) => url.set({ since })}
      />
    </Filters>
  );
}

export default function AuditPage() {
  const { t } = useI18n();
  const { project = '' } = useParams();
  const url = useUrlState();
  const isAdmin = useIsAdmin();
  const isServer = isAdmin && url.get('where') === 'server';
  const audit = useAudit(isServer ? null : project, {
    actor: url.get('actor'),
    action: url.get('action'),
    object: url.get('object'),
    since: sinceOf(url.get('since')),
    cursor: url.get('cursor'),
  });
  const isFiltered = ['actor', 'action', 'object', 'since'].some((name) => url.get(name) !== '');
  const [shown, setShown] = useState<AuditRow | null>(null);
  const columns: readonly Column<AuditRow>[] = [
    { id: 'when', header: t('audit.when'), cell: (row) => <RelativeTime at={row.at} /> },
    {
      id: 'actor',
      header: t('audit.actor'),
      cell: (row) => (
        <button
          type="button"
          className="link-button break"
          title={t('audit.onlyBy', { name: row.actor })}
          onClick={() => url.set({ actor: row.actor })}
        >
          {row.actor}
        </button>
      ),
    },
    { id: 'action', header: t('audit.action'), cell: (row) => <code>{row.action}</code> },
    {
      id: 'object',
      header: t('audit.object'),
      cell: (row) => (
        <>
          <span className="muted">{row.object_kind} </span>
          <ObjectLink project={project} kind={row.object_kind} id={row.object} />
        </>
      ),
      isWide: true,
    },
    {
      id: 'change',
      header: <span className="visually-hidden">{t('audit.change')}</span>,
      align: 'end',
      cell: (row) => (
        <Button
          size="small"
          look="quiet"
          aria-label={`${t('audit.show')}: ${row.action}`}
          onPress={() => setShown(row)}
        >
          {t('audit.change')}
        </Button>
      ),
    },
  ];
  return (
    <Page title={t('audit.title')}>
      <AuditFilters isAdmin={isAdmin} isServer={isServer} />
      <Table
        caption={t('audit.title')}
        hasCards
        columns={columns}
        rows={audit.data?.items}
        rowKey={(row) => row.id}
        error={audit.error}
        onRetry={() => void audit.refetch()}
        skeletonRows={8}
        empty={
          isFiltered ? (
            <Empty
              title={t('audit.noMatch')}
              action={<Link to={isServer ? '?where=server' : '?'}>{t('filters.clear')}</Link>}
            />
          ) : (
            <Empty title={t('audit.none')} />
          )
        }
      />
      {audit.data && (
        <Pager
          shown={audit.data.items.length}
          total={audit.data.total}
          isFirst={url.get('cursor') === ''}
          nextCursor={audit.data.next_cursor}
          onCursor={(cursor) => url.set({ cursor })}
        />
      )}
      {shown && (
        <Dialog title={`${shown.action} ${shown.object}`} isOpen onClose={() => setShown(null)} width="wide">
          <DialogBody>
            <p className="muted">
              {shown.actor}, <AbsoluteTime at={shown.at} />
            </p>
            <Json title={t('audit.before')} value={shown.before} />
            <Json title={t('audit.after')} value={shown.after} />
          </DialogBody>
        </Dialog>
      )}
    </Page>
  );
}
