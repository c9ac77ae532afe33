import { describe, expect, it } from 'vitest';
import { cpuShare } from './resources';

const reading = (seconds: number, cpu: number) => ({
  at: new Date(seconds * 1_000).toISOString(),
  cpu_ms: cpu,
  rss_bytes: 0,
  disk_free_bytes: 0,
  disk_used_bytes: 0,
  load1: 0,
  temperature_c: null,
});

describe('CPU of the agent', () => {
  it('is the share of the time between two readings', () => {
    expect(cpuShare([reading(0, 0), reading(10, 500)])).toEqual([{ x: 10_000, y: 0.05 }]);
  });

  it('breaks at a restart instead of going below zero', () => {
    expect(cpuShare([reading(0, 900), reading(10, 20), reading(20, 120)]).map((point) => point.y)).toEqual([
      null,
      0.01,
    ]);
  });
});
