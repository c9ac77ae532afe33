import type { Plan } from '../../api/plan';
import { NONE } from '../../i18n/format';
import { useI18n } from '../../i18n/i18n';
import { Facts } from '../../ui/panel';
import { wordOf } from '../../ui/tones';

/** The plan's own rules, beside its stages and gates. */
export function PlanFacts({ plan }: { readonly plan: Plan }) {
  const { t, format } = useI18n();
  const mode = plan.mode ?? 'replace';
  return (
    <Facts
      items={[
        [t('rollout.target'), plan.target ? <code>{plan.target}</code> : t('rollout.fillAll')],
        [t('rollout.onFailure'), wordOf(t, 'onFailure', plan.on_failure ?? 'pause')],
        [t('rollout.mode'), typeof mode === 'string' ? t(`mode.${mode}`) : t('mode.ab', { amount: mode.ab })],
        [t('rollout.control'), String(plan.control_reserve ?? NONE)],
        [t('rollout.taskTimeout'), format.seconds(plan.task_timeout_s)],
        [t('rollout.unreachableAfter'), format.seconds(plan.unreachable_after_s)],
        [t('rollout.failureBudget'), String(plan.failure_budget ?? NONE)],
        [t('rollout.unreachableBudget'), String(plan.unreachable_budget ?? NONE)],
        [t('rollout.retries'), format.number(plan.retries?.max)],
        [t('create.approval'), plan.needs_approval ? t('yes') : t('no')],
        [t('create.dynamic'), plan.is_dynamic ? t('yes') : t('no')],
      ]}
    />
  );
}
