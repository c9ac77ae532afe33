/** The server's sentences in Brazilian Portuguese. */
import type { enServer } from './en-server';
import type { Message } from './types';

export const ptBrServer: Readonly<Record<keyof typeof enServer, Message>> = {
  // Gates
  'server.gateUnmeasured': 'nada foi medido ainda',
  'server.gateStageNotBegun': 'a etapa ainda não começou',
  'server.gateNotInTasks': 'um limite em tarefas não tem evidência de fora',
  'server.gateNoInterval': 'a comparação não tem intervalo de confiança',
  'server.gateNotFinite': 'a comparação não dá um número finito',
  'server.gateNoneTookIt': '{why}; nenhum dispositivo recebeu a versão',
  'server.gateTasks':
    '{n} de {total} dispositivos, no máximo {amount}; {concluded} concluídos, são necessários ao menos {least}',
  'server.gateSamples': {
    one: '{n} amostra na versão nova, são necessárias {least}',
    other: '{n} amostras na versão nova, são necessárias {least}',
  },
  'server.gateControlSamples': {
    one: '{n} amostra no grupo de controle, são necessárias {least}',
    other: '{n} amostras no grupo de controle, são necessárias {least}',
  },
  'server.gateBound': '{value} frente ao limite {bound} (n={n})',
  'server.gateInterval':
    '{value} (n={n}) frente a {control} (n={controlN}) no controle: piora de {by} [{low}; {high}], no máximo {limit}',
  'server.gatePoint':
    '{value} (n={n}) frente a {control} (n={controlN}) no controle: piora de {by}, no máximo {limit}',

  // Stages as a whole
  'server.unmeasuredAfterSoak': 'nada foi medido depois do tempo de observação',
  'server.noEvidence': 'sem evidência a tempo: {why}',
  'server.tooFewDevices': {
    one: '{n} de {total} dispositivos recebeu a versão, são necessários {least}',
    other: '{n} de {total} dispositivos receberam a versão, são necessários {least}',
  },
  'server.failureBudget': {
    one: '{n} de {total} dispositivos falhou, a tolerância é {amount}',
    other: '{n} de {total} dispositivos falharam, a tolerância é {amount}',
  },
  'server.unreachableBudget': {
    one: '{n} de {total} dispositivos está inalcançável, a tolerância é {amount}',
    other: '{n} de {total} dispositivos estão inalcançáveis, a tolerância é {amount}',
  },

  // What a rollout waits for
  'server.soaks': 'fica em observação por mais {n} s',
  'server.waitsOffline': '{device} não está conectado',
  'server.waitsRetry': '{device} espera a nova tentativa (motivo: {cause})',
  'server.waitsTurn': '{device} espera a sua vez',
  'server.waitsAnswer': '{device} ainda não respondeu à oferta',
  'server.waitsProbation': '{device} está no período de prova',
  'server.waitsAtWork': '{device} está trabalhando',
  'server.waitsMore': 'e mais {n}',

  // Why a device is not on the release
  'server.whyLate': '{why}; depois disso relatou: {phase}',
  'server.whyNotATarget': 'o filtro de alvos do rollout não seleciona este dispositivo',
  'server.whyBroughtBack': 'está sendo levado de volta à versão anterior',
  'server.whyRunsBefore': 'já tinha a versão {version} antes',
  'server.whyOffered': 'a versão {version} foi oferecida; o dispositivo ainda não respondeu',
  'server.whyUnreachable': 'não respondeu em {n} s; o pedido continua à espera dele',
  'server.whyTimedOut': 'levou mais de {n} s na tentativa {attempt}',
  'server.whyFailed': 'falhou antes de servir: {cause}',
  'server.whyRejected': 'o dispositivo recusou a versão: {cause}',
  'server.whyFellBack': 'o dispositivo voltou à versão anterior no período de prova: {cause}',
  'server.whyGate': 'uma barreira falhou e o dispositivo foi levado de volta',
  'server.whyOperator': 'uma pessoa mandou levar o dispositivo de volta',
  'server.whyEnded': 'o rollout terminou antes de o dispositivo acabar',
  'server.whyAtWork': 'o dispositivo está trabalhando: {phase}',
  'server.whyLaterStage': 'espera a sua etapa: {stage} ({n} de {total}); a etapa {current} {stageState}',
  'server.whyRetry': 'a tentativa {attempt} falhou ({cause}); haverá outra',
  'server.whyWindow': 'espera a sua janela de manutenção',
  'server.whyRate': 'é a vez da sua etapa; o limite de ritmo o retém',
  'server.whyPaused': 'o rollout está pausado: {why}',
  'server.whyState': 'estado do rollout: {state}',
  'server.skipAlreadyThere': 'já tem a versão',
  'server.skipNewer': 'tem uma versão mais nova',
  'server.skipIncompatible': 'a versão não é para o seu hardware ou agente',
  'server.skipTooBig': 'a versão é grande demais para ele',
  'server.skipNotSelected': 'nenhuma etapa do plano o seleciona',
  'server.skipControl': 'fica na versão antiga para comparação',
  'server.whyRuns': 'tem a versão {version}',
  'server.pauseOperator': 'por uma pessoa: {words}',
  'server.pauseGate': 'uma barreira falhou: {why}',
  'server.pauseDependency': 'outro rollout vem antes: {words}',
  'server.pauseWindow': 'fora da janela de manutenção',

  // What a device is asked and does
  'server.deviceRollout': 'Rollout {rollout} da versão {version}: {why}.',
  'server.deviceDecommissioned': 'Foi desativado.',
  'server.deviceNothingDesired': 'Nenhum rollout pediu ainda que ele sirva {model}.',
  'server.deviceNotLoaded': 'Tem {model} {version}, mas não consegue carregar e não responde nada: {words}',
  'server.deviceOn': 'Serve {model} {version}.',
  'server.deviceNeverConnected': 'Foi cadastrado, mas nunca se conectou.',
  'server.deviceOffline': 'Não está conectado; continua quando voltar.',
  'server.deviceNotAccepted': 'Recebeu o pedido de servir {model} {version} e ainda não o aceitou.',
  'server.deviceUnderWay': 'Está a caminho de {model} {version}: {phase}.',
  'server.deviceFailedWhy': '{model} {version} falhou antes de servir: {words}',
  'server.deviceFailed': '{model} {version} falhou antes de servir',
  'server.deviceRolledBackWhy': '{model} {version} foi revertida: {words}',
  'server.deviceRolledBack': '{model} {version} foi revertida',
  'server.deviceRejectedWhy': '{model} {version} foi recusada: {words}',
  'server.deviceRejected': '{model} {version} foi recusada',

  // Causes in the journal and reasons of a state
  'server.causeUnconfirmed': 'nunca confirmou a versão anterior',
  'server.causeWaitOver': 'a espera acabou',
  'server.causeNoAnswer': 'nunca respondeu à oferta',
  'server.causeTooLong': 'levou mais tempo do que o plano permite',
  'server.causeAllEnded': 'todos os dispositivos chegaram ao fim',
  'server.causeStageTurn': 'chegou a sua vez',
  'server.causeStagePassed': 'a etapa anterior passou',
  'server.causeAllPassed': 'todas as etapas passaram',
  'server.causeAtWorkAgain': 'dispositivos da etapa voltaram a trabalhar',
  'server.causeGatesPassed': 'todas as barreiras foram vencidas',
  'server.causeWindowClosed': 'a sua janela de manutenção está fechada',
  'server.causeDeviceTurn': 'chegou a sua vez na etapa',
  'server.causeMeasured': 'o comportamento foi medido',
  'server.causeSelected': 'o filtro de alvos os seleciona',
  'server.causeChanged': 'o dispositivo mudou enquanto esperava',
  'server.causeLeft': 'o dispositivo saiu da frota',
  'server.causeNotSelected': 'nenhuma etapa o seleciona',
  'server.causeTime': 'chegou a sua hora',
  'server.causeNoTarget': 'nenhum dispositivo corresponde ao alvo',
  'server.causeNoTaker': 'nenhum dispositivo precisa da versão ou pode recebê-la',
  'server.causeControl': 'fica para comparação',
  'server.causeFilled': 'preenchida na ordem da semente',
  'server.causeLate': 'a tarefa já tinha terminado ou não tinha começado',
  'server.causeReported': 'o dispositivo relatou',
  'server.causeRetry': 'a tentativa {attempt} de {total} pode dar certo',
  'server.causeNoWayBack': 'os metadados assinados não permitem volta; fica com a versão',
  'server.causeServesAgain': 'o dispositivo serve de novo a versão anterior',
  'server.causeTakesOver': 'o rollout {rollout} assume',
  'server.causeNeedsApproval': 'o plano pede aprovação',
  'server.causeComplete': 'o rascunho está completo',
  'server.causeApproved': 'aprovado',
  'server.causeResumed': 'retomado',
  'server.causeOverBudget': 'retomado acima da tolerância',
  'server.causeJudgedAgain': 'retomado: a etapa é avaliada de novo',
  'server.causeAnotherChance': 'retomado com outra chance',
  'server.reasonPaused': 'pausado por uma pessoa',
  'server.reasonAborted': 'abortado por uma pessoa',
  'server.reasonRolledBack': 'revertido por uma pessoa',
  'server.reasonDenied': 'negado por uma pessoa',
  'server.reasonUnconfirmed': {
    one: '{why}; {n} dispositivo sem confirmação',
    other: '{why}; {n} dispositivos sem confirmação',
  },
  'server.reasonTookOver': 'o rollout {rollout} assumiu',

  // Alerts
  'server.alertDevice': 'Só {device} tem deriva em {model}: {words}',
  'server.alertFleet': '{n} de {total} dispositivos têm deriva em {model}: {words}',
  'server.alertRollout': 'Rollout de {model} {version}: {why}',

  // Dry runs
  'server.dryEmpty': '{stage} não tem dispositivo e é pulada',
  'server.dryOffline': 'nenhum dispositivo de {stage} está conectado agora',
  'server.dryNoControl':
    '{gate}, {stage}: compara com um grupo de controle, mas nenhum dispositivo ficaria numa versão antiga',
  'server.dryNotJudged':
    '{gate}, {stage}: não é julgada; nenhum dispositivo ficaria numa versão antiga para comparar',
  'server.drySample': '{gate}: pede {least} dispositivos, a etapa tem {total}: todos contam',

  // A gate by name before what it says
  'server.gateSays': '{gate}: {why}',
};
