/** Composition root: providers and routes. Every page is a chunk of its own. */
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { RouterProvider as AriaRouterProvider } from 'react-aria-components';
import {
  createBrowserRouter,
  Navigate,
  Outlet,
  RouterProvider,
  useHref,
  useLocation,
  useNavigate,
} from 'react-router';
import { ApiError } from './api/errors';
import { useHasSessionEnded, useSession } from './api/session';
import { I18nProvider } from './i18n/i18n';
import { Home, Shell } from './layout/shell';
import { LoginPage, PasswordPage } from './pages/login';
import { lazyPage } from './ui/lazy-page';
import { Failure, Skeleton } from './ui/states';

const OverviewPage = lazyPage(() => import('./pages/overview'));
const DevicesPage = lazyPage(() => import('./pages/devices'));
const DevicePage = lazyPage(() => import('./pages/device/device'));
const ReleasesPage = lazyPage(() => import('./pages/releases'));
const ReleasePage = lazyPage(() => import('./pages/release'));
const RolloutsPage = lazyPage(() => import('./pages/rollouts'));
const RolloutPage = lazyPage(() => import('./pages/rollout/rollout'));
const DriftPage = lazyPage(() => import('./pages/drift/drift'));
const AlertsPage = lazyPage(() => import('./pages/alerts'));
const AuditPage = lazyPage(() => import('./pages/audit'));
const SettingsPage = lazyPage(() => import('./pages/settings'));
const NotFoundPage = lazyPage(() => import('./pages/not-found'));

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      // Answers of the server are final; only an unreachable or overloaded server is asked again.
      retry: (count, error) => count < 3 && !(error instanceof ApiError && error.status < 500),
    },
  },
});

function Root() {
  const navigate = useNavigate();
  return (
    <AriaRouterProvider navigate={(to) => void navigate(to)} useHref={useHref}>
      <Outlet />
    </AriaRouterProvider>
  );
}

/** Lets nobody in who isn't signed in; comes back to the same address afterwards. */
function SignedIn({ children }: { readonly children: ReactNode }) {
  const session = useSession();
  const hasEnded = useHasSessionEnded();
  const location = useLocation();
  if (session.data === null) {
    const from = location.pathname + location.search;
    return <Navigate to="/login" replace state={{ from, hasEnded }} />;
  }
  if (session.data?.mustChangePassword && location.pathname !== '/password') {
    return <Navigate to="/password" replace state={{ from: location.pathname + location.search }} />;
  }
  if (session.data) return children;
  if (session.error) return <Failure error={session.error} onRetry={() => void session.refetch()} />;
  return (
    <div className="page">
      <Skeleton lines={8} />
    </div>
  );
}

const router = createBrowserRouter([
  {
    element: <Root />,
    children: [
      { path: '/login', element: <LoginPage /> },
      {
        path: '/password',
        element: (
          <SignedIn>
            <PasswordPage />
          </SignedIn>
        ),
      },
      {
        path: '/',
        element: (
          <SignedIn>
            <Home />
          </SignedIn>
        ),
      },
      {
        path: '/p/:project',
        element: (
          <SignedIn>
            <Shell />
          </SignedIn>
        ),
        children: [
          { index: true, element: <Navigate to="overview" replace /> },
          { path: 'overview', element: <OverviewPage /> },
          { path: 'devices', element: <DevicesPage /> },
          { path: 'devices/:device', element: <DevicePage /> },
          { path: 'releases', element: <ReleasesPage /> },
          { path: 'releases/:model/:version', element: <ReleasePage /> },
          { path: 'rollouts', element: <RolloutsPage /> },
          { path: 'rollouts/:rollout', element: <RolloutPage /> },
          { path: 'drift', element: <DriftPage /> },
          { path: 'drift/:model', element: <DriftPage /> },
          { path: 'alerts', element: <AlertsPage /> },
          { path: 'audit', element: <AuditPage /> },
          { path: 'settings', element: <SettingsPage /> },
          { path: '*', element: <NotFoundPage /> },
        ],
      },
      {
        path: '*',
        element: (
          <SignedIn>
            <NotFoundPage />
          </SignedIn>
        ),
      },
    ],
  },
]);

export function App() {
  return (
    <QueryClientProvider client={queries}>
      <I18nProvider>
        <RouterProvider router={router} />
      </I18nProvider>
    </QueryClientProvider>
  );
}
