import { describe, expect, it } from 'vitest';
import { isValid, newDraft, toPlan } from './draft';

const release = { version: '1.1.0', digest: 'sha256:00', counter: 3 };

describe('a new rollout', () => {
  it('is safe as it comes: stages, gates, going back', () => {
    const plan = toPlan(newDraft('digits', '1.1.0'), release);
    expect(plan.stages.map((stage) => stage.fill)).toEqual([
      { amount: 1 },
      { amount: '25%' },
      { amount: '100%' },
    ]);
    expect(plan.gates?.map((gate) => gate.metric)).toEqual(['install_failures', 'error_rate', 'latency_p95']);
    expect(plan.on_failure).toBe('roll_back_stage');
  });

  it("has the server's own gates with their own limits", () => {
    const { gates } = toPlan(newDraft('digits', '1.1.0'), release);
    expect(gates?.map((gate) => [gate.limit, gate.min_sample])).toEqual([
      [{ tasks: { at_most: '5%' } }, 1],
      [{ worse_than_control: { by_at_most: 0.01, judged_by: 'shown_worse' } }, 100],
      [{ worse_than_control: { by_at_most: 0.5, judged_by: 'point' } }, 100],
    ]);
  });

  it('asks the last stage for nothing that only a control group can answer', () => {
    const plan = toPlan(newDraft('digits', '1.1.0'), release);
    expect(plan.stages.at(-1)?.gates?.map((gate) => gate.metric)).toEqual(['install_failures']);
    const single = { ...newDraft('digits', '1.1.0'), stages: [{ key: 1, amount: '1', soakS: '0' }] };
    expect(toPlan(single, release).stages[0]).not.toHaveProperty('gates');
  });

  it('cannot be sent half-filled', () => {
    const draft = newDraft('digits', '1.1.0');
    expect(isValid(draft)).toBe(true);
    expect(isValid({ ...draft, version: '' })).toBe(false);
    expect(isValid({ ...draft, stages: [] })).toBe(false);
    expect(isValid({ ...draft, stages: [{ key: 1, amount: 'some', soakS: '0' }] })).toBe(false);
    expect(isValid({ ...draft, minSample: '0' })).toBe(false);
    expect(isValid({ ...draft, failures: { isOn: true, by: '101' } })).toBe(false);
    expect(isValid({ ...draft, failures: { isOn: false, by: '' } })).toBe(true);
  });
});
