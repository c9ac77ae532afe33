/** The stages side by side: what each is, how far it came, what its gates said. Choosing one shows its gates. */
import type { RolloutDetail } from '../../api/rollouts';
import type { Fill } from '../../api/plan';
import { StackBar } from '../../charts/stack-bar';
import { useI18n } from '../../i18n/i18n';
import { useServerText } from '../../i18n/server-sentences';
import type { Translate } from '../../i18n/types';
import { Badge } from '../../ui/badge';
import { RelativeTime } from '../../ui/time';
import { toneOf, wordOf } from '../../ui/tones';
import { phaseParts } from './phases';

export function fillText(t: Translate, fill: Fill): string {
  if ('devices' in fill) return t('rollout.devices', { n: fill.devices.length });
  if ('filter' in fill) return t('rollout.fillFilter', { filter: fill.filter });
  if (fill.amount === '100%') return t('rollout.fillAll');
  if (typeof fill.amount === 'number') return t('rollout.devices', { n: fill.amount });
  return t('rollout.fillPercent', { amount: fill.amount });
}

/** A stage that never began because earlier ones took every device is not one that still waits. */
function shownState(rollout: RolloutDetail, stage: RolloutDetail['stages'][number]): string {
  return rollout.state === 'completed' && stage.state === 'pending' ? 'not_needed' : stage.state;
}

interface StageStripProps {
  readonly rollout: RolloutDetail;
  readonly chosen: number;
  readonly onChoose: (stage: number) => void;
}

export function StageStrip({ rollout, chosen, onChoose }: StageStripProps) {
  const { t, format } = useI18n();
  const server = useServerText();
  return (
    <ol className="stages" aria-label={t('rollout.stages')}>
      {rollout.stages.map((stage, index) => {
        const passed = stage.gates.filter((gate) => gate.verdict === 'passed').length;
        const { plan } = stage;
        return (
          <li key={stage.stage}>
            <button
              type="button"
              className={`stage stage-${toneOf(stage.state)}`}
              aria-pressed={index === chosen}
              onClick={() => onChoose(index)}
            >
              <span className="stage-title">
                <span className="strong">{`${index + 1}. ${server.stage(stage.name)}`}</span>
                <Badge tone={toneOf(stage.state)}>
                  {wordOf(t, 'stageState', shownState(rollout, stage))}
                </Badge>
              </span>
              {plan && (
                <span className="small muted">
                  {fillText(t, plan.fill)} ·{' '}
                  {t('rollout.stageNote', { soak: format.seconds(stage.soak_s), n: plan.min_devices ?? 1 })}
                </span>
              )}
              <StackBar parts={phaseParts(t, stage.tasks)} />
              <span className="small muted num">
                {stage.gates.length > 0 && `${t('rollout.gates')}: ${passed}/${stage.gates.length}`}
                {stage.decided_at !== null && (
                  <>
                    {' · '}
                    <RelativeTime at={stage.decided_at} />
                  </>
                )}
              </span>
            </button>
          </li>
        );
      })}
    </ol>
  );
}
