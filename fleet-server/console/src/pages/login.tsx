/** Sign-in, and the change of a one-time password before anything else. */
import { useEffect, useState, type ReactNode, type SubmitEvent } from 'react';
import { useLocation, useNavigate } from 'react-router';
import { ApiError } from '../api/errors';
import { useChangePassword, useSession, useSignIn } from '../api/session';
import { useI18n } from '../i18n/i18n';
import { LocaleMenu, ThemeMenu } from '../layout/menus';
import { Button } from '../ui/button';
import { TextField } from '../ui/field';
import { ErrorText, Notice } from '../ui/states';
import './login.css';

const SHORTEST_PASSWORD = 10;

function Card({ title, children }: { readonly title: string; readonly children: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · Flotilla`;
  }, [title]);
  return (
    <div className="login">
      <header className="login-top">
        <ThemeMenu />
        <LocaleMenu />
      </header>
      <main className="login-card">
        <p className="login-brand">
          <img src="/favicon.svg" width="28" height="28" alt="" />
          Flotilla
        </p>
        <h1>{title}</h1>
        {children}
      </main>
    </div>
  );
}

/** Where to go after sign-in: only to a path of this console. */
export function safePath(from: unknown): string {
  return typeof from === 'string' && /^\/(?!\/)/.test(from) && from !== '/login' ? from : '/';
}

export function LoginPage() {
  const { t } = useI18n();
  const navigate = useNavigate();
  const location = useLocation();
  const signIn = useSignIn();
  const [user, setUser] = useState('');
  const [password, setPassword] = useState('');
  const state = location.state as { from?: unknown; hasEnded?: unknown } | null;
  const from = state?.from;

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    signIn.mutate(
      { username: user, password },
      {
        onSuccess: (session) =>
          void navigate(session.mustChangePassword ? '/password' : safePath(from), {
            replace: true,
            state: session.mustChangePassword ? { from, current: password } : null,
          }),
      },
    );
  };
  const isWrong = signIn.error instanceof ApiError && signIn.error.status === 401;
  return (
    <Card title={t('login.title')}>
      {state?.hasEnded === true && !signIn.error && <Notice tone="info">{t('login.ended')}</Notice>}
      <form className="login-form" onSubmit={submit}>
        <TextField
          label={t('login.user')}
          name="username"
          value={user}
          onChange={setUser}
          autoComplete="username"
          isRequired
          autoFocus
        />
        <TextField
          label={t('login.password')}
          name="password"
          type="password"
          value={password}
          onChange={setPassword}
          autoComplete="current-password"
          isRequired
        />
        {signIn.error && (
          <p className="field-error" role="alert">
            {isWrong ? t('login.wrong') : <ErrorText error={signIn.error} />}
          </p>
        )}
        <Button type="submit" look="primary" isPending={signIn.isPending}>
          {t('login.submit')}
        </Button>
      </form>
    </Card>
  );
}

export function PasswordPage() {
  const { t } = useI18n();
  const navigate = useNavigate();
  const session = useSession();
  const change = useChangePassword();
  const state = useLocation().state as { from?: unknown; current?: unknown } | null;
  const known = typeof state?.current === 'string' ? state.current : '';
  const [current, setCurrent] = useState(known);
  const [first, setFirst] = useState('');
  const [second, setSecond] = useState('');
  const [isTried, setIsTried] = useState(false);
  const isShort = first.length < SHORTEST_PASSWORD;
  const isDifferent = first !== second;

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    setIsTried(true);
    if (isShort || isDifferent) return;
    change.mutate(
      { current, next: first },
      { onSuccess: () => void navigate(safePath(state?.from), { replace: true, state: null }) },
    );
  };
  return (
    <Card title={t('password.title')}>
      {session.data?.mustChangePassword && <Notice tone="info">{t('password.why')}</Notice>}
      <form className="login-form" onSubmit={submit} noValidate>
        {known === '' && (
          <TextField
            label={t('password.current')}
            type="password"
            value={current}
            onChange={setCurrent}
            autoComplete="current-password"
            isRequired
          />
        )}
        <TextField
          label={t('password.new')}
          type="password"
          value={first}
          onChange={setFirst}
          autoComplete="new-password"
          hint={t('password.short', { n: SHORTEST_PASSWORD })}
          error={isTried && isShort ? t('password.short', { n: SHORTEST_PASSWORD }) : null}
          isRequired
          autoFocus
        />
        <TextField
          label={t('password.again')}
          type="password"
          value={second}
          onChange={setSecond}
          autoComplete="new-password"
          error={isTried && isDifferent ? t('password.differ') : null}
          isRequired
        />
        {change.error && (
          <p className="field-error" role="alert">
            <ErrorText error={change.error} />
          </p>
        )}
        <Button type="submit" look="primary" isPending={change.isPending}>
          {t('password.submit')}
        </Button>
      </form>
    </Card>
  );
}
