/** The frame of all pages of a project: top bar, navigation, live updates. */
import { Suspense, useEffect, useRef, useState } from 'react';
import { Navigate, NavLink, Link, Outlet, useLocation, useNavigate, useParams } from 'react-router';
import { useAlerts } from '../api/alerts';
import { useLive } from '../api/stream';
import { projectsOf, useProjects, useSession, useSignOut } from '../api/session';
import { useI18n } from '../i18n/i18n';
import { readSetting, writeSetting } from '../theme/settings';
import { Button } from '../ui/button';
import { ErrorBoundary } from '../ui/error-boundary';
import { Select } from '../ui/field';
import { Icon } from '../ui/icons';
import { Page } from '../ui/page';
import { Empty, Skeleton } from '../ui/states';
import { LocaleMenu, ThemeMenu, UserMenu } from './menus';
import { NAV } from './nav';
import './shell.css';

function Logo() {
  return (
    <svg width="24" height="24" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" fill="var(--accent)" />
      <path d="M15 5v14H6.500zM17 9l8 10h-8zM5 21.500h22l-3 5.500H8z" fill="var(--on-accent)" />
    </svg>
  );
}

function LiveMark({ project }: { readonly project: string }) {
  const { t } = useI18n();
  const isLive = useLive(project);
  return (
    <span
      className={isLive ? 'live' : 'live live-polling'}
      role="status"
      title={t(isLive ? 'nav.liveHint' : 'nav.pollingHint')}
    >
      <span className="live-mark" aria-hidden="true" />
      <span className="live-text">{t(isLive ? 'nav.live' : 'nav.polling')}</span>
    </span>
  );
}

function Navigation({ project }: { readonly project: string }) {
  const { t, format } = useI18n();
  const alerts = useAlerts(project, { isOpenOnly: true, limit: 1 });
  const open = alerts.data?.total ?? 0;
  return (
    <nav aria-label={t('nav.main')}>
      <ul className="nav-list">
        {NAV.map((item) => (
          <li key={item.path}>
            <NavLink to={`/p/${project}/${item.path}`} className="nav-link">
              <Icon name={item.icon} />
              {t(item.label)}
              {item.path === 'alerts' && open > 0 && (
                <span className="nav-count num" aria-label={`${t('overview.alerts')}: ${open}`}>
                  {format.number(open)}
                </span>
              )}
            </NavLink>
          </li>
        ))}
      </ul>
    </nav>
  );
}

/** After a navigation, the reader's place is the new page's content, not the link that is gone. */
function useFocusOnNavigation(main: React.RefObject<HTMLElement | null>) {
  const { pathname } = useLocation();
  const before = useRef(pathname);
  useEffect(() => {
    if (before.current === pathname) return;
    before.current = pathname;
    main.current?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }, [pathname, main]);
}

export function Shell() {
  const { t } = useI18n();
  const { project = '' } = useParams();
  const navigate = useNavigate();
  const location = useLocation();
  const session = useSession();
  const projects = useProjects();
  const signOut = useSignOut();
  const main = useRef<HTMLElement>(null);
  const [openAt, setOpenAt] = useState<string | null>(null);
  const isNavOpen = openAt === location.pathname;
  useFocusOnNavigation(main);
  useEffect(() => writeSetting('project', project), [project]);

  const options = (projects.data ?? [project]).map((name) => ({ id: name, label: name }));
  return (
    <div className="shell">
      <a className="skip-link" href="#main">
        {t('nav.skip')}
      </a>
      <header className="topbar">
        <div className="nav-toggle">
          <Button
            look="quiet"
            isIcon
            aria-label={t('nav.open')}
            aria-expanded={isNavOpen}
            onPress={() => setOpenAt(isNavOpen ? null : location.pathname)}
          >
            <Icon name={isNavOpen ? 'close' : 'menu'} />
          </Button>
        </div>
        <Link to={`/p/${project}/overview`} className="brand">
          <Logo />
          <span className="brand-name">{t('app.name')}</span>
        </Link>
        <Select
          label={t('nav.project')}
          isLabelHidden
          options={options}
          value={project}
          onChange={(name) => void navigate(`/p/${name}/overview`)}
        />
        <span className="topbar-space" />
        <LiveMark project={project} />
        <ThemeMenu />
        <LocaleMenu />
        <UserMenu
          name={session.data?.user ?? ''}
          onChangePassword={() => void navigate('/password')}
          onSignOut={() => signOut.mutate()}
        />
      </header>
      <div className={isNavOpen ? 'sidebar sidebar-open' : 'sidebar'}>
        <Navigation project={project} />
      </div>
      <main className="main" id="main" ref={main} tabIndex={-1}>
        <ErrorBoundary key={location.pathname}>
          <Suspense fallback={<PageSkeleton />}>
            <Outlet />
          </Suspense>
        </ErrorBoundary>
      </main>
    </div>
  );
}

function PageSkeleton() {
  return (
    <div className="page">
      <Skeleton lines={8} />
    </div>
  );
}

/** `/`: the project that was open last, else the first that the person may see. */
export function Home() {
  const { t } = useI18n();
  const projects = useProjects();
  const session = useSession();
  const known = projects.data ?? (projects.isError ? projectsOf(session.data) : undefined);
  if (!known) return <PageSkeleton />;
  const last = known.find((name) => name === readSetting('project')) ?? known[0];
  if (last !== undefined) return <Navigate to={`/p/${last}/overview`} replace />;
  return (
    <main className="main">
      <Page title={t('app.name')}>
        <Empty title={t('project.none')} hint={t('project.noneHint')} />
      </Page>
    </main>
  );
}
