/** What devices kept of this release for retraining, how to fetch it, and what it takes where there is nothing. */
import { Link } from 'react-router';
import type { Manifest } from '../../api/manifest';
import {
  STRATEGIES,
  useSampleCounts,
  useSamples,
  type Sample,
  type SampleAnswer,
  type Strategy,
} from '../../api/samples';
import { useCan } from '../../api/session';
import { NONE, type Format } from '../../i18n/format';
import { useI18n } from '../../i18n/i18n';
import { Badge } from '../../ui/badge';
import { CopyButton } from '../../ui/copy';
import { Select } from '../../ui/field';
import { Filters } from '../../ui/page';
import { Pager } from '../../ui/pager';
import { Panel, Stat, Stats } from '../../ui/panel';
import { Empty } from '../../ui/states';
import { Table, type Column } from '../../ui/table';
import { RelativeTime } from '../../ui/time';
import { toneOf, wordOf } from '../../ui/tones';
import { useUrlState } from '../../ui/url-state';
import './samples.css';

interface SamplesProps {
  readonly project: string;
  readonly manifest: Manifest;
}

/** `3 (97.1 %)` of a classifier, the number of a regression. */
export function answerText(format: Format, answer: SampleAnswer): string {
  if (answer.label === null) return format.score(answer.value, 4);
  return answer.confidence === null ? answer.label : `${answer.label} (${format.percent(answer.confidence)})`;
}

export function downloadCommand(model: string, version: string, strategy: string): string {
  const only = strategy === '' ? '' : ` --strategy ${strategy}`;
  return `flotilla samples download --model ${model} --version ${version}${only} --out ./samples`;
}

function useColumns(project: string): readonly Column<Sample>[] {
  const { t, format } = useI18n();
  return [
    { id: 'when', header: t('samples.when'), cell: (row) => <RelativeTime at={row.at} /> },
    {
      id: 'device',
      header: t('device.name'),
      cell: (row) => (
        <Link className="break" to={`/p/${project}/devices/${row.device}`}>
          {row.device}
        </Link>
      ),
    },
    {
      id: 'strategy',
      header: t('samples.strategy'),
      cell: (row) => <Badge tone={toneOf(row.strategy)}>{wordOf(t, 'strategy', row.strategy)}</Badge>,
    },
    {
      id: 'answer',
      header: t('samples.answer'),
      cell: (row) => (
        <span className="break">
          {answerText(format, row.answer)}
          {row.beside && (
            <span className="muted small">
              {' '}
              {t('samples.beside', { answer: answerText(format, row.beside) })}
            </span>
          )}
          {row.feature !== null && <span className="muted small"> {row.feature}</span>}
        </span>
      ),
    },
    {
      id: 'label',
      header: t('samples.label'),
      cell: (row) => <span className="break">{row.label ?? NONE}</span>,
    },
    {
      id: 'probability',
      header: t('samples.probability'),
      cell: (row) => format.number(row.probability, 4),
      align: 'end',
      isSecondary: true,
    },
    {
      id: 'size',
      header: t('release.size'),
      cell: (row) => format.bytes(row.size_bytes),
      align: 'end',
      isSecondary: true,
    },
    {
      id: 'expires',
      header: t('samples.expires'),
      cell: (row) => <RelativeTime at={row.expires_at} />,
      isSecondary: true,
    },
  ];
}

function Download({ project, command }: { readonly project: string; readonly command: string }) {
  const { t } = useI18n();
  const can = useCan(project);
  if (!can('publisher')) return <p className="muted small">{t('samples.downloadRole')}</p>;
  return (
    <div className="stack">
      <p>{t('samples.downloadHow')}</p>
      <div className="row">
        <code className="command">{command}</code>
        <CopyButton text={command} label={t('samples.copy')} />
      </div>
    </div>
  );
}

function Counts({ counts }: { readonly counts: ReadonlyMap<Strategy, number | undefined> }) {
  const { t, format } = useI18n();
  return (
    <Stats>
      {STRATEGIES.map((strategy) => (
        <Stat
          key={strategy}
          label={t(`strategy.${strategy}`)}
          value={format.number(counts.get(strategy))}
          detail={t(`strategyIs.${strategy}`)}
        />
      ))}
    </Stats>
  );
}

/** What keeps the list empty: the publisher's word stands in the manifest, the owners' on each device. */
function NoSamples({ manifest }: { readonly manifest: Manifest }) {
  const { t } = useI18n();
  const isAllowed = manifest.privacy.may_send_samples;
  return (
    <Empty
      title={t('samples.none')}
      hint={t(isAllowed ? 'samples.noneAllowed' : 'samples.noneForbidden')}
      action={
        <ul className="consent small">
          <li>
            <Badge tone={isAllowed ? 'ok' : 'warn'}>{t(isAllowed ? 'samples.said' : 'samples.unsaid')}</Badge>{' '}
            {t('samples.publisher')} <code>[privacy] may_send_samples = true</code>
          </li>
          <li>
            <Badge tone="idle">{t('samples.unknown')}</Badge> {t('samples.owner')}{' '}
            <code>[capture] consent = true</code>
          </li>
        </ul>
      }
    />
  );
}

export function Samples({ project, manifest }: SamplesProps) {
  const { t } = useI18n();
  const url = useUrlState();
  const columns = useColumns(project);
  const { model, version } = manifest;
  const strategy = STRATEGIES.find((each) => each === url.get('strategy')) ?? '';
  const samples = useSamples(project, model, { version, strategy, cursor: url.get('cursor') });
  const counts = useSampleCounts(project, model, version);
  const days = manifest.privacy.sample_days;
  const isNone = strategy === '' && samples.data?.total === 0;
  if (isNone) {
    return (
      <Panel title={t('samples.title')}>
        <NoSamples manifest={manifest} />
      </Panel>
    );
  }
  return (
    <Panel
      title={t('samples.title')}
      note={typeof days === 'number' ? t('samples.days', { n: days }) : t('samples.note')}
    >
      <div className="stack">
        <Counts counts={counts} />
        <Download project={project} command={downloadCommand(model, version, strategy)} />
        <Filters>
          <Select
            label={t('samples.strategy')}
            options={[
              { id: '', label: t('field.any') },
              ...STRATEGIES.map((id) => ({ id, label: t(`strategy.${id}`) })),
            ]}
            value={strategy}
            onChange={(next) => url.set({ strategy: next })}
          />
        </Filters>
        <Table
          caption={t('samples.title')}
          hasCards
          columns={columns}
          rows={samples.data?.items}
          rowKey={(row) => `${row.device} ${row.digest}`}
          error={samples.error}
          onRetry={() => void samples.refetch()}
          empty={<Empty title={t('samples.noMatch')} />}
        />
        {samples.data && (
          <Pager
            shown={samples.data.items.length}
            total={samples.data.total}
            isFirst={url.get('cursor') === ''}
            nextCursor={samples.data.next_cursor}
            onCursor={(cursor) => url.set({ cursor })}
          />
        )}
      </div>
    </Panel>
  );
}
