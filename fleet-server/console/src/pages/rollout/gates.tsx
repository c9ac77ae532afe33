/** A stage's gates with what was measured: both groups' numbers, the difference, the interval, the arithmetic. */
import { worsening } from '../../api/plan';
import type { Gate } from '../../api/rollouts';
import { useI18n } from '../../i18n/i18n';
import { NONE } from '../../i18n/format';
import { useServerText } from '../../i18n/server-sentences';
import { Badge } from '../../ui/badge';
import { AbsoluteTime } from '../../ui/time';
import { toneOf, wordOf } from '../../ui/tones';
import { formatDifference, formatLimit, formatMetric, formatRange } from './gate-format';
import './gates.css';

function SampleText({ gate, side }: { readonly gate: Gate; readonly side: 'candidate' | 'control' }) {
  const { t, format } = useI18n();
  const sample = gate.evidence?.[side];
  if (!sample) return <span className="muted">{NONE}</span>;
  return (
    <>
      <span className="gate-value num">{formatMetric(format, gate.metric, sample.value)}</span>
      <span className="muted small num">{t('gate.sample', { n: sample.n, devices: sample.devices })}</span>
    </>
  );
}

function Difference({ gate }: { readonly gate: Gate }) {
  const { t, format } = useI18n();
  const { metric, evidence } = gate;
  if (!evidence?.control) return <span className="muted">{NONE}</span>;
  const { candidate, control, worse } = evidence;
  return (
    <>
      <span className="gate-value num">
        {formatDifference(t, format, metric, worsening(metric, candidate.value, control.value))}
      </span>
      {worse && (
        <span className="muted small num">
          {t('gate.interval', {
            confidence: format.percent(worse.confidence, 0),
            range: formatRange(t, format, metric, worse.low, worse.high),
          })}
        </span>
      )}
    </>
  );
}

function Arithmetic({ gate }: { readonly gate: Gate }) {
  const { t } = useI18n();
  const { evidence } = gate;
  if (!evidence) return null;
  return (
    <details className="chart-table">
      <summary>{t('gate.arithmetic')}</summary>
      <p className="small break mono">{evidence.arithmetic}</p>
      <p className="small muted">
        {t('gate.window')}: <AbsoluteTime at={evidence.from} /> – <AbsoluteTime at={evidence.to} />
      </p>
    </details>
  );
}

function GateCard({ gate }: { readonly gate: Gate }) {
  const { t, format } = useI18n();
  const server = useServerText();
  const { slice, min_sample: least } = gate.gate;
  return (
    <li className={`gate gate-${gate.verdict}`}>
      <header className="gate-head">
        <h3>
          {wordOf(t, 'metric', gate.metric)}
          {slice && <span className="muted"> · {slice}</span>}
          {gate.gate.kind && <span className="muted"> · {wordOf(t, 'cause', gate.gate.kind)}</span>}
        </h3>
        <Badge tone={toneOf(gate.verdict)}>{wordOf(t, 'gate', gate.verdict)}</Badge>
      </header>
      <dl className="gate-facts">
        <div>
          <dt>{t('gate.limit')}</dt>
          <dd>
            <span>{formatLimit(t, format, gate.gate)}</span>
            <span className="muted small num">{t('gate.minSample', { n: least })}</span>
          </dd>
        </div>
        {gate.evidence && (
          <>
            <div>
              <dt>{t('gate.candidate')}</dt>
              <dd>
                <SampleText gate={gate} side="candidate" />
              </dd>
            </div>
            <div>
              <dt>{t('gate.control')}</dt>
              <dd>
                <SampleText gate={gate} side="control" />
              </dd>
            </div>
            <div>
              <dt>{t('gate.difference')}</dt>
              <dd>
                <Difference gate={gate} />
              </dd>
            </div>
          </>
        )}
      </dl>
      {gate.evidence && gate.evidence.left_out.length > 0 && (
        <p className="small break">{t('gate.leftOut', { devices: gate.evidence.left_out.join(', ') })}</p>
      )}
      {gate.because !== '' && <p className="small break">{server.sentence(gate.because)}</p>}
      <Arithmetic gate={gate} />
    </li>
  );
}

interface GatesProps {
  readonly gates: readonly Gate[];
  readonly notJudged: readonly string[];
}

export function Gates({ gates, notJudged }: GatesProps) {
  const { t } = useI18n();
  const server = useServerText();
  return (
    <>
      {gates.length === 0 ? (
        <p className="muted small">{t('rollout.noGates')}</p>
      ) : (
        <ul className="gates">
          {gates.map((gate) => (
            <GateCard key={JSON.stringify(gate.gate)} gate={gate} />
          ))}
        </ul>
      )}
      {notJudged.length > 0 && (
        <p className="small">{t('gate.notJudged', { gates: notJudged.map(server.gate).join(', ') })}</p>
      )}
    </>
  );
}
