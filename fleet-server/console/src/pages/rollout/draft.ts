/** The new-rollout form's state and the plan that it makes. Pure. */
import {
  isAmount,
  toAmount,
  type Gate,
  type Metric,
  type NewRollout,
  type OnFailure,
  type ReleaseRef,
  type StagePlan,
} from '../../api/plan';

export interface StageDraft {
  readonly key: number;
  readonly amount: string;
  readonly soakS: string;
}

export interface GateDraft {
  readonly isOn: boolean;
  /** In percent, percentage points or (prediction drift) hundredths. */
  readonly by: string;
}

/** Compared with the control group. Error rates are judged as the server's own gate does: only when shown to be worse. */
export const CHOICES = {
  error_rate: { text: 'create.gateErrors', judgedBy: 'shown_worse' },
  latency_p95: { text: 'create.gateLatency', judgedBy: 'point' },
  accuracy: { text: 'create.gateAccuracy', judgedBy: 'point' },
  estimated_accuracy: { text: 'create.gateEstimated', judgedBy: 'point' },
  prediction_drift: { text: 'create.gatePrediction', judgedBy: 'point' },
} as const satisfies Partial<Record<Metric, { text: string; judgedBy: string }>>;
export type Choice = keyof typeof CHOICES;

export interface Draft {
  readonly model: string;
  readonly version: string;
  readonly target: string;
  readonly stages: readonly StageDraft[];
  /** Devices of a stage that may fail to take the release, in percent. */
  readonly failures: GateDraft;
  readonly gates: Readonly<Record<Choice, GateDraft>>;
  readonly minSample: string;
  readonly onFailure: OnFailure;
  readonly needsApproval: boolean;
  readonly isDynamic: boolean;
}

/**
 * Stages, soak time and going back are suggestions, and the form says so: left out, the server takes everything at once
 * and pauses. The gates that are on are those that the server takes by itself (docs/ROLLOUTS.md).
 */
export function newDraft(model: string, version: string): Draft {
  return {
    model,
    version,
    target: '',
    stages: [
      { key: 1, amount: '1', soakS: '600' },
      { key: 2, amount: '25%', soakS: '600' },
      { key: 3, amount: '100%', soakS: '0' },
    ],
    failures: { isOn: true, by: '5' },
    gates: {
      error_rate: { isOn: true, by: '1' },
      latency_p95: { isOn: true, by: '50' },
      accuracy: { isOn: false, by: '2' },
      estimated_accuracy: { isOn: false, by: '3' },
      prediction_drift: { isOn: false, by: '10' },
    },
    minSample: '100',
    onFailure: 'roll_back_stage',
    needsApproval: false,
    isDynamic: false,
  };
}

export function isValid(draft: Draft): boolean {
  const numbers = [draft.failures, ...Object.values(draft.gates)].every(
    (gate) => !gate.isOn || (gate.by !== '' && Number(gate.by) >= 0),
  );
  const isShare = !draft.failures.isOn || /^\d{1,2}(\.\d{1,3})?$/.test(draft.failures.by);
  return (
    draft.model !== '' &&
    draft.version !== '' &&
    draft.stages.length > 0 &&
    draft.stages.every((stage) => isAmount(stage.amount) && Number(stage.soakS) >= 0) &&
    Number(draft.minSample) >= 1 &&
    numbers &&
    isShare
  );
}

function gatesOf(draft: Draft): Gate[] {
  const least = Math.round(Number(draft.minSample));
  const gates: Gate[] = draft.failures.isOn
    ? [{ metric: 'install_failures', limit: { tasks: { at_most: `${draft.failures.by}%` } }, min_sample: 1 }]
    : [];
  for (const metric of Object.keys(CHOICES) as Choice[]) {
    const choice = draft.gates[metric];
    if (!choice.isOn) continue;
    gates.push({
      metric,
      limit: {
        worse_than_control: { by_at_most: Number(choice.by) / 100, judged_by: CHOICES[metric].judgedBy },
      },
      min_sample: least,
      min_control_sample: least,
    });
  }
  return gates;
}

/** The server takes stages in shorter forms too; the form writes them in full. */
export type DraftPlan = Omit<NewRollout, 'stages'> & { stages: StagePlan[] };

export function toPlan(draft: Draft, release: ReleaseRef): DraftPlan {
  const gates = gatesOf(draft);
  // Once every device has the release, no control group is left to compare with.
  const counted = gates.filter((gate) => 'tasks' in gate.limit);
  return {
    model: draft.model,
    release,
    target: draft.target.trim(),
    stages: draft.stages.map((stage, index) => {
      const isLast = index === draft.stages.length - 1 && draft.stages.length > 1;
      return {
        fill: { amount: toAmount(stage.amount) },
        soak_s: Math.round(Number(stage.soakS)),
        ...(isLast && { gates: counted }),
      };
    }),
    gates,
    on_failure: draft.onFailure,
    needs_approval: draft.needsApproval,
    is_dynamic: draft.isDynamic,
  };
}
