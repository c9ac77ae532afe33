import { describe, expect, it } from 'vitest';
import { int8Features } from './cpu-features';

describe('CPU features', () => {
  it('name first what makes int8 fast, in the order of speed', () => {
    expect(int8Features(['aes', 'avx2', 'avx512_vnni', 'sse4_2'])).toEqual(['avx512_vnni', 'avx2']);
    expect(int8Features(['asimd', 'crc32', 'asimddp'])).toEqual(['asimddp', 'asimd']);
    expect(int8Features(['fpu'])).toEqual([]);
  });
});
