import { describe, expect, it } from 'vitest';
import { changeText } from '../pages/rollout/change-text';
import { en } from './en';
import { enServer } from './en-server';
import { makeFormat } from './format';
import { ptBr } from './pt-br';
import { makeServerText } from './server-sentences';
import { makeTranslate } from './translate';

const t = makeTranslate(ptBr, 'pt-BR');
const format = makeFormat('pt-BR', t);
const server = makeServerText('pt-BR', t, format);
const tEn = makeTranslate(en, 'en');
const english = makeServerText('en', tEn, makeFormat('en', tEn));

/** As the server wrote them, and how they read. */
const REAL: readonly (readonly [string, string])[] = [
  ['nothing was measured yet', 'nada foi medido ainda'],
  ["the stage hasn't begun", 'a etapa ainda não começou'],
  [
    '0 of 3 devices, at most 5%; 0 concluded, at least 1 needed',
    '0 de 3 dispositivos, no máximo 5\u202f%; 0 concluídos, são necessários ao menos 1',
  ],
  [
    '0 of 3 devices, at most 2.5%; 3 concluded, at least 1 needed; no device took the release',
    '0 de 3 dispositivos, no máximo 2,5\u202f%; 3 concluídos, são necessários ao menos 1; nenhum dispositivo recebeu a versão',
  ],
  ['1 samples on the new release, 1500 needed', '1 amostra na versão nova, são necessárias 1.500'],
  ['0.12 against the bound 0.1 (n=40)', '0,12 frente ao limite 0,1 (n=40)'],
  [
    '0.801762 (n=681) against control 0.839108 (n=2107): worse by 0.037346 [-0.004800, 0.072000], at most 0.05',
    '0,801762 (n=681) frente a 0,839108 (n=2.107) no controle: piora de 0,037346 [-0,0048; 0,072], no máximo 0,05',
  ],
  [
    '812.500000 (n=681) against control 800.000000 (n=90): worse by 0.015625, at most 0.5',
    '812,5 (n=681) frente a 800 (n=90) no controle: piora de 0,015625, no máximo 0,5',
  ],
  [
    'no evidence in time: accuracy: 10 samples on the new release, 50 needed',
    'sem evidência a tempo: acurácia: 10 amostras na versão nova, são necessárias 50',
  ],
  [
    'soaks 12 s more; accuracy[hour=3]: nothing was measured yet; install_failures(goldenmismatch): 0 of 2 devices, at most 1; 1 concluded, at least 2 needed; no device took the release',
    'fica em observação por mais 12 s; acurácia (hour=3): nada foi medido ainda; falhas de instalação (respostas diferem das amostras de referência): 0 de 2 dispositivos, no máximo 1; 1 concluídos, são necessários ao menos 2; nenhum dispositivo recebeu a versão',
  ],
  [
    "cam-1 is not connected, cam-2 waits for its retry after disk_full, cam-3 hasn't answered the offer yet, and 3 more",
    'cam-1 não está conectado, cam-2 espera a nova tentativa (motivo: disco cheio), cam-3 ainda não respondeu à oferta, e mais 3',
  ],
  ['cam-1 is in probation', 'cam-1 está no período de prova'],
  [
    'it belongs to stage 2 (2 of 3); stage 1 is soaking',
    'espera a sua etapa: etapa 2 (2 de 3); a etapa 1 está em observação',
  ],
  [
    'it belongs to Lisboa (3 of 3); stage 1 is being offered the release',
    'espera a sua etapa: Lisboa (3 de 3); a etapa 1 está recebendo a versão',
  ],
  [
    'the rollout is paused: a gate failed: accuracy: 10 samples on the new release, 50 needed',
    'o rollout está pausado: uma barreira falhou: acurácia: 10 amostras na versão nova, são necessárias 50',
  ],
  [
    'the rollout is paused: by a person: lunch, back at 2',
    'o rollout está pausado: por uma pessoa: lunch, back at 2',
  ],
  ['the rollout is rolling_back', 'estado do rollout: revertendo'],
  [
    'it failed before it served: download; it has since reported committed',
    'falhou antes de servir: falha ao baixar; depois disso relatou: confirmado',
  ],
  ['1 of 4 devices failed, the budget is 5%', '1 de 4 dispositivos falhou, a tolerância é 5\u202f%'],
  ['0 of 2 devices took the release, 1 needed', '0 de 2 dispositivos recebeu a versão, são necessários 1'],
  [
    'Rollout digits-1.1.0-3f09ab of 1.1.0: it stays on the old release for comparison.',
    'Rollout digits-1.1.0-3f09ab da versão 1.1.0: fica na versão antiga para comparação.',
  ],
  ['It serves digits 1.1.0.', 'Serve digits 1.1.0.'],
  ['It is on the way to digits 1.1.0: self_test.', 'Está a caminho de digits 1.1.0: autoteste.'],
  [
    "It has digits 1.1.0, but can't load it and answers nothing: out of memory",
    'Tem digits 1.1.0, mas não consegue carregar e não responde nada: out of memory',
  ],
  [
    'digits 1.1.1 was refused: needs 90 MB, 80 MB are free',
    'digits 1.1.1 foi recusada: needs 90 MB, 80 MB are free',
  ],
  [
    'rolled back by a person; 2 devices unconfirmed',
    'revertido por uma pessoa; 2 dispositivos sem confirmação',
  ],
  [
    'cam-4 alone drifts in digits: brightness, prediction',
    'Só cam-4 tem deriva em digits: brightness, prediction',
  ],
  ['3 of 4 devices drift in digits: brightness', '3 de 4 dispositivos têm deriva em digits: brightness'],
  [
    'Rollout of digits 2.0.0: accuracy: 0.6 against the bound 0.9 (n=40)',
    'Rollout de digits 2.0.0: acurácia: 0,6 frente ao limite 0,9 (n=40)',
  ],
  ['stage 3 has no device and is passed over', 'etapa 3 não tem dispositivo e é pulada'],
  [
    "latency_p95 isn't judged in stage 3: no device would still run an old release to compare with",
    'latência (p95), etapa 3: não é avaliada; nenhum dispositivo ficaria numa versão antiga para comparar',
  ],
  [
    'install_failures asks for 5 devices, the stage has 2: all of them count',
    'falhas de instalação: pede 5 dispositivos, a etapa tem 2: todos contam',
  ],
  [
    'No device can take digits 1.1.0: 3 of 4: it runs the release already; 1 of 4: it stays on the old release for comparison.',
    'Nenhum dispositivo pode receber digits 1.1.0: 3 de 4: já tem a versão; 1 de 4: fica na versão antiga para comparação.',
  ],
  [
    "A rollout that is completed can't be rolled back.",
    'Não é possível reverter um rollout neste estado: concluído.',
  ],
  [
    'No device of stage 1 has failed: there is none to give another chance.',
    'Nenhum dispositivo falhou em etapa 1: não há a quem dar outra chance.',
  ],
  ['There is no such rollout.', 'Não encontrado: rollout.'],
  ['A password needs at least 10 characters.', 'A senha precisa de ao menos 10 caracteres.'],
  ['attempt 2 of 3 may succeed', 'a tentativa 2 de 3 pode dar certo'],
];

describe("the server's sentences", () => {
  it.each(REAL)('are said in Portuguese: %s', (sentence, said) => {
    expect(server.sentence(sentence)).toBe(said);
  });

  it("pass in English with the console's word for a phase", () => {
    const isAboutPhase = (sentence: string) => /self_test|has since reported/.test(sentence);
    for (const [sentence] of REAL.filter(([each]) => !isAboutPhase(each)))
      expect(english.sentence(sentence)).toBe(sentence);
    expect(english.sentence('the device is at work: downloading')).toBe('the device is at work: fetching');
    expect(english.sentence('It is on the way to digits 1.1.0: self_test.')).toBe(
      'It is on the way to digits 1.1.0: self-test.',
    );
  });

  it('are each found by their own words', () => {
    const example: Readonly<Record<string, string>> = {
      device: 'cam-1',
      model: 'digits',
      version: '1.1.0',
      rollout: 'digits-1.1.0-3f09ab',
      phase: 'self_test',
      cause: 'download',
      state: 'aborted',
      stageState: 'passed',
      gate: 'accuracy',
      stage: 'stage 2',
      why: 'it runs 1.1.0',
      words: 'as they are',
      verb: 'rolled back',
      what: 'rollout',
      amount: '5%',
    };
    for (const [key, template] of Object.entries(enServer)) {
      const params = Object.fromEntries(
        [...template.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => [name, example[name] ?? '3']),
      );
      const sentence = template.replace(/\{(\w+)\}/g, (_, name: string) => params[name] ?? '');
      expect(server.sentence(sentence), key).not.toBe(sentence);
    }
  });

  it('stay as they are when the console does not know them', () => {
    for (const unknown of [
      '',
      'lunch, back at 2; stage 1 looks odd',
      'soaks many s more',
      'metric_of_tomorrow: nothing was measured yet',
      `it runs ${'9'.repeat(5000)}`,
    ]) {
      expect(server.sentence(unknown)).toBe(unknown);
    }
  });

  it('translate default names of stages, gates and actors only', () => {
    expect(server.stage('stage 2')).toBe('Etapa 2');
    expect(server.stage('control group')).toBe('Grupo de controle');
    expect(server.stage('Lisboa')).toBe('Lisboa');
    expect(english.stage('stage 2')).toBe('Stage 2');
    expect(server.gate('latency_p95[hour=3]')).toBe('Latência (p95) (hour=3)');
    expect(server.gate('install_failures(diskfull)')).toBe('Falhas de instalação (disco cheio)');
    expect(english.gate('metric_of_tomorrow')).toBe('metric of tomorrow');
    expect(server.actor('engine')).toBe('motor de rollouts');
    expect(server.actor('user ana')).toBe('usuário ana');
    expect(english.actor('device cam-1')).toBe('device cam-1');
  });
});

describe("the server's words", () => {
  const folder = '../../../../';
  const sources = import.meta.glob<string>(
    [
      '../../../../crates/rollout/src/**/*.rs',
      '../../../../fleet-server/src/api/**/*.rs',
      '../../../../fleet-server/src/domain/**/*.rs',
    ],
    { query: '?raw', import: 'default', eager: true },
  );
  // A backslash at a line's end joins it with the next.
  const rust = Object.values(sources)
    .join('\n')
    .replace(/\\\n\s*/g, '');

  /** The engine puts these together from pieces. */
  const PIECES: Readonly<Record<string, readonly string[]>> = {
    'devices failed, the budget is': ['"failed"', 'devices {what}, the budget is'],
    'devices are unreachable, the budget is': ['"are unreachable"', 'devices {what}, the budget is'],
  };

  it('are still those of its source', () => {
    expect(Object.keys(sources)).toContain(`${folder}crates/rollout/src/gate.rs`);
    const all = rust.toLowerCase();
    const lost = Object.entries(enServer).flatMap(([key, template]) =>
      template
        .split(/\{\w+\}/)
        .map((part) => part.replace(/^[^a-z]+|[^a-z]+$/gi, ''))
        .filter((part) => part.length > 3)
        .flatMap((part) => PIECES[part] ?? [part])
        .filter((part) => !all.includes(part.toLowerCase()))
        .map((part) => `${key}: ${part}`),
    );
    expect(lost).toEqual([]);
  });
});

describe('journal entries', () => {
  const say = (change: object, locale: 'en' | 'pt-BR' = 'pt-BR') => {
    const entry = { change: change as Record<string, never>, message: 'as the server says it' };
    return locale === 'en' ? changeText(tEn, makeFormat('en', tEn), entry) : changeText(t, format, entry);
  };
  const running = (stage: number) => ({ status: 'running', stage });

  it('are said from their data in both languages', () => {
    expect(say({ change: 'status', from: { status: 'scheduled' }, to: running(0) })).toBe(
      'O rollout passou de Agendado para Em andamento',
    );
    expect(say({ change: 'status', from: running(0), to: running(1) }, 'en')).toBe(
      'The rollout moved on to stage 2',
    );
    expect(say({ change: 'stage', stage: 0, from: 'offering', to: 'soaking' })).toBe(
      'A etapa 1 está em observação',
    );
    expect(say({ change: 'filled', stage: 0, devices: ['a'] }, 'en')).toBe(
      'Stage 1 was filled with 1 device',
    );
    expect(say({ change: 'filled', stage: null, devices: ['a', 'b'] })).toBe(
      '2 dispositivos estão fora das etapas',
    );
    expect(
      say({ change: 'task', device: 'cam-1', from: { phase: 'queued' }, to: { phase: 'offered' } }),
    ).toBe('cam-1 passou de Na fila para Oferecido');
    expect(say({ change: 'waiting', device: 'cam-1', until: null })).toBe('cam-1 não espera mais');
    expect(say({ change: 'measured', stage: 1, evidence: [] }, 'en')).toBe(
      'Stage 2: measured, but no metric has data yet',
    );
  });

  it("fall back to the server's words for a change of a newer kind", () => {
    expect(say({ change: 'of_tomorrow' })).toBe('as the server says it');
  });
});
