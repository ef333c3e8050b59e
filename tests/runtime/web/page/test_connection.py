"""What the page says and does while the server is full, gone, silent or does not let it in."""


def test_who_finds_all_places_taken_waits_and_gets_in_when_one_is_free(on, serve, visit, web):
    with serve(sessions=1) as running, running.client() as client:
        taken = web.open_session(client)
        page, _ = visit(running.url)
        on.says(page, "All places taken")
        page.locator("#cover", has_text="Trying again").wait_for()
        on.shots(page, "busy")
        client.delete(taken)
        on.ready(page)


def test_a_broken_connection_is_told_and_taken_up_again(on, serve, visit, web):
    with serve(reconnect_seconds=0.3) as running:
        page, _ = visit(running.url)
        on.ready(page)
        page.locator(".tile.photo", has_text="Grace Hopper").click()
        page.route("**/api/**", lambda route: route.abort())
        for session in list(running.service.sessions._sessions.values()):
            running.run(running.service.sessions.close(session))
        on.says(page, "Disconnected")
        on.shots(page, "disconnected")
        page.unroute("**/api/**")
        on.ready(page)
        page.locator('.tile.photo input[value="grace-hopper"]:checked').wait_for(state="attached")


def test_a_line_that_falls_silent_counts_as_broken(on, serve, visit):
    with serve() as running:
        page, _ = visit(running.url)
        on.ready(page)
        page.context.set_offline(True)
        on.says(page, "Disconnected")
        page.context.set_offline(False)
        on.says(page, "Ready")


def test_a_token_is_taken_from_the_address_and_hidden(on, serve, visit):
    token = "a-token-of-sufficient-length"
    with serve({"token": token}) as running:
        page, _ = visit(running.url)
        page.locator("#cover", has_text="does not let you in").wait_for()
        page, notes = visit(f"{running.url}/#token={token}")
        on.ready(page)
        assert token not in page.url
        page.reload()
        on.ready(page)
        assert notes.errors == []
